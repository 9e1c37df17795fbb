# Kun: `make demo` and `make test` do everything. Settings: CONFIG=file SUBSET=name FORCE=1 SEED=n RUN=name N=faults.
PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/demo.yaml
SEED ?= 7
N ?= 200
RUN ?= demo
KUN = $(VENV)/bin/kun
OPTIONS = --config $(CONFIG) $(if $(SUBSET),--subset $(SUBSET)) $(if $(FORCE),--force)

.PHONY: setup demo test chaos lint status clean stage1 stage2 stage3 stage4 stage5

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml scripts/build_lmplz.sh
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	scripts/build_lmplz.sh $(VENV) || echo "setup: without lmplz the demo uses the small language model it ships with"
	touch $@

demo: setup
	$(KUN) demo-data --seed $(SEED) --out data/$(RUN)
	$(KUN) run all --config data/$(RUN)/config.yaml
	$(KUN) status runs/$(RUN)
	$(KUN) demo-eval runs/$(RUN)

test: setup
	$(VENV)/bin/python -m pytest

chaos: setup
	$(VENV)/bin/python -m tests.chaos $(N) --seed $(SEED)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

stage1 stage2 stage3 stage4 stage5: setup
	$(KUN) run $@ $(OPTIONS)

status: setup
	$(KUN) status --config $(CONFIG)

clean:
	rm -rf runs/demo data/demo $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache
