# Two commands matter: `make compare` and `make test`. Both install into .venv first, once.
#
#   make compare ARGS="--methods sft,null,dpo --seeds 0"   arguments for `harness compare`
#   make test ARGS="tests/sandbox -x"                      arguments for pytest
#   make test SELECT="slow"                                another choice of marked tests
#   make test PROCESSES=0                                  in one process, for a debugger
#   make mutants ARGS="harness/store --count 20"           a smaller mutation run; stopped, it goes on where it was
#   make faults CONFIG=                                    a comparison of seconds in place of the quickstart
#   make compare PIP_ARGS="..."                            arguments for pip, such as another index

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
CONFIG ?= configs/quickstart.yaml
SELECT ?= not slow and not gpu and not network
# One more than cores: tests wait for the processes that they start.
PROCESSES ?= 3
PIP_ARGS ?=
PIP := $(BIN)/python -m pip install --no-input --disable-pip-version-check --progress-bar off -qq -c constraints.txt $(PIP_ARGS)
# One thread per process: the harness starts one process per core, and two torch threads on busy cores are slower than one.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: help compare test faults calibration mutants gpu gpu-wheels lint docs docs-check site release clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

compare: $(VENV)/.installed ## run the quickstart (or ARGS="my.yaml …") and write its board under runs/
	@$(BIN)/harness compare $(ARGS)

test: $(VENV)/.installed-dev ## run the tests that need no GPU, no network and no minutes, with coverage
	@$(ONE_THREAD) $(BIN)/python -m slipcover -m pytest -m "$(SELECT)" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

# The trials of what other people may send: fast, so `make test` has them too.
HOSTILE := tests/fuzz/test_hostile_models.py tests/fuzz/test_fuzz_imports.py tests/models/test_rendering.py tests/models/test_client.py \
	tests/models/test_server.py tests/models/judge/test_judge_retries.py tests/store/test_damage.py tests/store/test_exchange.py \
	tests/store/test_odd_archives.py tests/test_limits.py tests/test_registry.py tests/cli/test_signals.py tests/board/test_site_folder.py \
	tests/board/test_evidence.py tests/board/test_senders_code.py tests/test_verified_comparison.py tests/fuzz/test_fuzz_boards.py

faults: $(VENV)/.installed-faults ## kill, terminate, damage and fill up the quickstart at one seed, and the hostile trials (25 minutes; less with CONFIG=)
	@$(ONE_THREAD) $(BIN)/python -m pytest $(HOSTILE) -m "not gpu and not network" $(ARGS)
	@$(ONE_THREAD) FAULTS_CONFIG="$(CONFIG)" $(BIN)/python -m pytest tests/test_faults.py tests/test_judged_odd_replies.py -m slow $(ARGS)

calibration: $(VENV)/.installed ## simulate whether intervals and tests hold (25 minutes of one core; ARGS=--quick a fifth)
	@$(ONE_THREAD) $(BIN)/python benchmarks/calibration.py --processes $(PROCESSES) $(ARGS)

mutants: $(VENV)/.installed-dev ## break 100 places of the code, one at a time, and list those that no test notices (an hour)
	@$(ONE_THREAD) nice -n 10 $(BIN)/python benchmarks/mutants.py $(ARGS)

gpu: ## measure in nine minutes what only a GPU can tell, without network (ARGS="--small --device cpu" anywhere)
	@$(or $(PYTHON),$(wildcard $(BIN)/python),python3) benchmarks/gpu $(ARGS)

gpu-wheels: $(VENV)/.installed ## before `make gpu`, with network: download what a machine with PyTorch and transformers lacks
	@$(BIN)/python benchmarks/gpu/wheels.py $(ARGS)

lint: $(VENV)/.installed-dev ## ruff, mypy and the import contracts
	@echo "ruff check"; $(BIN)/ruff check .
	@echo "ruff format --check"; $(BIN)/ruff format --check .
	@echo "mypy"; $(BIN)/mypy
	@echo "lint-imports"; $(BIN)/lint-imports

docs: $(VENV)/.installed ## write the generated parts of README.md, docs/ and plugins/*/README.md
	@$(BIN)/python docs/generate.py

docs-check: $(VENV)/.installed ## fail if a generated part is stale
	@$(BIN)/python docs/generate.py --check

site: $(VENV)/.installed-docs ## build the documentation site into site/; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

release: $(VENV)/.installed-dev ## build wheel and sdist into dist/, and test them in an environment of their own
	@$(BIN)/python -m build --outdir dist
	@$(ONE_THREAD) $(BIN)/python -m pytest -m "slow or not slow" tests/test_release.py

clean: ## remove .venv, caches and build outputs; runs/ stays
	@rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again when python itself is gone; an environment that was cut off half-way is cleared.
$(BIN)/python:
	@for candidate in $(PYTHON) python3.11 python3 python3.12 python3.13; do \
	  if command -v "$$candidate" >/dev/null && "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$($$candidate --version)"; \
	    "$$candidate" -m venv --clear $(VENV); exit 0; \
	  fi; \
	done; \
	echo "Python 3.11 or newer is needed and was not found; name one with: make compare PYTHON=/path/to/python" >&2; exit 1

# torch first: see constraints.txt.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing torch (with the next, about a minute the first time) …"
	@$(PIP) torch
	@echo "installing the harness …"
	@$(PIP) -e '.[train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests and checks need …"
	@$(PIP) -e '.[dev]'
	@touch $@

# Ray, for the node that is lost.
$(VENV)/.installed-faults: $(VENV)/.installed-dev
	@echo "installing Ray …"
	@$(PIP) -e '.[dev,ray]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "installing what the documentation site needs …"
	@$(PIP) -e '.[train,docs]'
	@touch $@
