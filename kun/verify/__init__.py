"""Whether a run, or a data set alone, is what was made: `kun verify RUN` (kun.cli.verify)."""
