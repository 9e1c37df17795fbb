"""Complete checkpoints: `Watch(progress, ...)` as a callback of the trainer, `latest(work)`.

A checkpoint counts once its marker, with the digest of its content, is on disk; the marker is written after everything
else was flushed, and older checkpoints are removed only then. So whenever the process dies, the last complete
checkpoint exists; incomplete or damaged ones are removed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from kun.store import atomic, digests

MARKER = "complete"
_log = logging.getLogger(__name__)


def latest(work: Path) -> Path | None:
    """The last complete checkpoint. All others are removed, with a warning if one was complete and is damaged."""
    whole = sorted(filter(_is_whole, work.glob("checkpoint-*")), key=_step)
    for path in work.glob("checkpoint-*"):
        if (path / MARKER).exists() and path not in whole:
            start = whole[-1].name if whole else "the beginning"
            _log.warning("%s: the checkpoint is damaged; the training goes on from %s", path, start)
        if path not in whole[-1:]:
            remove(path)
    return whole[-1] if whole else None


def seal(checkpoint: Path) -> None:
    """Flush a checkpoint to the disk, then mark it."""
    for path in (*checkpoint.rglob("*"), checkpoint, checkpoint.parent):
        atomic.sync(path)
    atomic.write(checkpoint / MARKER, _content(checkpoint))


def _is_whole(checkpoint: Path) -> bool:
    marker = checkpoint / MARKER
    return marker.is_file() and marker.read_bytes() == _content(checkpoint)


def _content(checkpoint: Path) -> bytes:
    return digests.of_folder(checkpoint, leave_out=(MARKER,)).encode()


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint; the marker goes first, so that a partial one never counts."""
    (checkpoint / MARKER).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint, requests an evaluation at the end of each epoch, and reports progress.

    An evaluation is requested at the end of a step, before its checkpoint is written: with `eval_strategy="epoch"` the
    trainer evaluates after it, and a process that dies between the two would lose the evaluation.
    """

    def __init__(self, progress: Callable[[int, int], None], steps_per_epoch: int, evaluate: bool) -> None:
        self._progress = progress
        self._steps_per_epoch = steps_per_epoch
        self._evaluate = evaluate

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps)
        at_end = state.global_step % self._steps_per_epoch == 0 or state.global_step >= state.max_steps
        control.should_evaluate = self._evaluate and at_end

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        current = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seal(current)
        for path in Path(args.output_dir).glob("checkpoint-*"):
            if path != current:
                remove(path)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])
