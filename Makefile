# Start here: `make demo` shows the main job, `make test` runs the tests. Needs Python 3.11 or newer with venv, and pip.

PYTHON ?= python3
VENV   ?= .venv
LOWEST ?= .venv-lowest
LATEST ?= .venv-latest
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCKS  := requirements/torch.txt requirements/dev.txt requirements/no-deps.txt
QUICK  := not slow and not gpu
# Tests run in as many processes as there are cores. Each computes on one thread; more would only wait for cores.
PYTEST  = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n auto

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all slow gpu lint format lock audit sbom image-digests latest lowest wheel clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

install: $(STAMP)  ## make the environment in .venv from the lock files, if it is missing or out of date

demo: $(STAMP)  ## masks, captions and a short training on real photographs; downloads no weights
	$(BIN)/synthgen demo

test: lint  ## lint, types and the quick tests
	$(call PYTEST,$(VENV)) -m "$(QUICK)"

test-all: lint  ## lint, types and all tests that need no GPU
	$(call PYTEST,$(VENV)) -m "not gpu"

slow: $(STAMP)  ## only the slow tests: kills, disks that fill up, large files
	$(call PYTEST,$(VENV)) -m "slow and not gpu"

gpu: $(STAMP)  ## the tests that need a GPU, on a machine that has one
	$(BIN)/pytest -m gpu

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)  ## let ruff put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(STAMP)  ## renew the lock files in requirements/ from pyproject.toml
	UV=$(CURDIR)/$(BIN)/uv requirements/lock.sh

audit: $(STAMP)  ## look for known vulnerabilities of the locked packages; needs a network
	UV=$(CURDIR)/$(BIN)/uv requirements/audit.sh

sbom: $(STAMP)  ## write the list of all locked packages to dist/sbom.cdx.json (CycloneDX)
	$(BIN)/python requirements/sbom.py dist/sbom.cdx.json

image-digests:  ## pin the base images of the Dockerfile by the digests of their registries; needs a network
	@$(PYTHON) requirements/image_digests.py Dockerfile

wheel: $(STAMP)  ## build the wheel and the sdist into dist/
	$(BIN)/python -m hatchling build

# The lock holds neither the newest nor the oldest versions. These two targets try both ends.
latest: $(STAMP)  ## the quick tests with the newest versions of all packages
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(LATEST)
	$(BIN)/uv pip install --quiet --python $(LATEST) --editable ".[dev]"
	$(BIN)/uv pip install --quiet --python $(LATEST) --no-deps --requirement requirements/no-deps.in
	$(call PYTEST,$(LATEST)) -m "$(QUICK)"

lowest: $(STAMP)  ## the quick tests with the lowest versions that pyproject.toml allows
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable ".[dev]"
	$(BIN)/uv pip install --quiet --python $(LOWEST) --no-deps --requirement requirements/no-deps.in
	$(call PYTEST,$(LOWEST)) -m "$(QUICK)"

clean:  ## remove the environments and everything that was built
	rm -rf $(VENV) $(LATEST) $(LOWEST) build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find synthgen pipelines tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Every package comes from the lock files, with its hash. The stamp lies inside the environment, so an environment that is
# deleted or incomplete is made again.
$(STAMP): pyproject.toml $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "synthgen needs Python 3.11 or newer, '$(PYTHON)' is not; name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make environments; install its venv module: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps $(LOCKS:%=-r %)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
