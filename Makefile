# Kun: `make demo` and `make test` do everything. Options: CONFIG=file SUBSET=name FORCE=1; for the demo SEED=n RUN=name.
# `make status RUN=name` shows the run runs/name.
# `make fuzz N=1000 TARGETS=wanjuan` feeds broken files and odd texts to readers, parsers and rules.
# `make chaos N=200 SEED=7` injects faults into every stage of a run, resumes it and compares the results.
PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/demo.yaml
SEED ?= 7
RUN ?= demo
KUN = $(VENV)/bin/kun
OPTIONS = --config $(CONFIG) $(if $(SUBSET),--subset $(SUBSET)) $(if $(FORCE),--force)

.PHONY: setup vllm demo test fuzz chaos lint status clean stage1 stage2 stage3 stage4 stage5

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

vllm: $(VENV)/ready-vllm

$(VENV)/ready-vllm: $(VENV)/ready scripts/install_vllm.sh
	scripts/install_vllm.sh $(VENV)
	touch $@

test: setup
	$(MAKE) --no-print-directory vllm || echo "test: vLLM could not be installed; its tests are skipped"
	$(VENV)/bin/python -m pytest

fuzz: setup
	$(VENV)/bin/python tests/fuzz.py $(TARGETS) --inputs $(or $(N),100000)

chaos: setup
	$(VENV)/bin/python -m tests.chaos $(or $(N),200) --seed $(SEED)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/deptry .

stage1 stage2 stage3 stage4 stage5: setup
	$(KUN) run $@ $(OPTIONS)

# RUN=name: the run runs/name, compared with its own settings, or with those of CONFIG=file; else the run of CONFIG.
status: setup
	$(KUN) status $(if $(filter file,$(origin RUN)),,runs/$(RUN)) $(if $(filter filefile,$(origin RUN)$(origin CONFIG))$(filter-out file,$(origin CONFIG)),--config $(CONFIG))

clean:
	rm -rf runs/demo data/demo $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache
