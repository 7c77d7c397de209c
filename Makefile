# `make demo` and `make test` do all the set-up by themselves; a second call skips what is there.

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all test-pins test-algoperf lint hooks format bench clean help

help:  ## list the targets
	@grep -E '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.venv: .venv/installed  ## virtual environment with everything

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python >= 3.11 is needed, $$($(PYTHON) --version) was found; try make PYTHON=python3.11" >&2; exit 1; }
	@echo "Installing into .venv (about a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[bench,dev]'
	@touch $@

demo: .venv  ## compare meta-optimization with tuned optimizers, write a report (3 minutes)
	@$(BIN)/python -m tuning compare demo --out runs/demo

test: .venv  ## lint, then every test that is not slow by nature
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not algoperf"

test-all: .venv  ## the slow tests (kills, Ray clusters, a browser, new environments), then test-pins
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not algoperf"
	$(MAKE) test-pins

# What is named first: otherwise pip searches for very long among the versions of what that needs.
INSTALL_LISTED = $(1)/bin/python $(PIP_INSTALL) --no-deps -r $(2) && $(1)/bin/python $(PIP_INSTALL) -r $(2)
# AlgoPerf's repository has no package in the index; its version comes from tags that a copy may lack.
ALGOPERF_INSTALL = SETUPTOOLS_SCM_PRETEND_VERSION=0.6.0 $(1)/bin/python $(PIP_INSTALL) --no-deps -e '$(ALGOPERF)'

.PHONY: algoperf-checkout
algoperf-checkout:
	@test -n "$(ALGOPERF)" || \
	  { echo "Say where AlgoPerf's repository lies: make test-algoperf ALGOPERF=path/to/algorithmic-efficiency" >&2; exit 1; }

.venv-algoperf/installed: pyproject.toml constraints.txt tests/algoperf/requirements.txt | algoperf-checkout
	@$(PYTHON) -m venv .venv-algoperf
	@$(call INSTALL_LISTED,.venv-algoperf,tests/algoperf/requirements.txt)
	@.venv-algoperf/bin/python $(PIP_INSTALL) -c constraints.txt -e '.[bench,dev]'
	@$(call ALGOPERF_INSTALL,.venv-algoperf)
	@touch $@

.venv-algoperf-pins/installed: tests/algoperf/requirements-pins.txt | algoperf-checkout
	@$(PYTHON) -m venv .venv-algoperf-pins
	@$(call INSTALL_LISTED,.venv-algoperf-pins,$<)
	@$(call ALGOPERF_INSTALL,.venv-algoperf-pins)
	@touch $@

test-algoperf: .venv-algoperf/installed .venv-algoperf-pins/installed  ## the tests with AlgoPerf itself, ALGOPERF=its checkout (15 minutes)
	METAOPT_ALGOPERF_PINS=.venv-algoperf-pins/bin/python .venv-algoperf/bin/python -m pytest -m algoperf tests/algoperf

.venv-pins/installed: pyproject.toml constraints-pins.txt
	@$(PYTHON) -m venv .venv-pins
	@.venv-pins/bin/python $(PIP_INSTALL) -c constraints-pins.txt -e '.[bench,dev]'
	@touch $@

test-pins: .venv-pins/installed  ## the optimizer, the referee and the submissions on AlgoPerf's versions of JAX, Flax and optax
	.venv-pins/bin/python -m pytest -n 2 --dist worksteal -m "not slow" tests/metaopt tests/theory tests/bench tests/submissions

.venv/lint-installed: .venv/installed
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[lint]'
	@touch $@

lint: .venv/lint-installed  ## lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

hooks: .venv/lint-installed  ## run the checks before every commit
	$(BIN)/pre-commit install

format: .venv  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv  ## performance benchmarks: ratios measured in one run
	$(BIN)/python tests/performance/bench_optimizer.py
	$(BIN)/python tests/performance/bench_runner.py
	$(BIN)/python tests/performance/bench_trials.py

clean:  ## delete the environment and the caches, not the runs
	rm -rf .venv .venv-pins .venv-algoperf .venv-algoperf-pins .pytest_cache .ruff_cache .hypothesis *.egg-info
