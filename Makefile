# Every target sets up what it needs in .venv by itself, with nothing but Python >= 3.11 and make on the machine.
#   make demo DEMO="--data trades.csv.gz"     options for the demo
#   make test TESTS=tests/store WORKERS=4     a part of the tests; parallel workers (0: in this process)
#   make ... PYTHON=/path/to/python3.12       the Python to build .venv from

BIN := .venv/bin
WORKERS ?= 2
TESTS ?=
DEMO ?=
VERSIONS := 3.11 3.12 3.13
export PYTHON
# Without bytecode on disk, each process that a test starts would compile all of the source again.
export PYTHONDONTWRITEBYTECODE :=

.NOTPARALLEL:  # setups of one .venv must not overlap
.PHONY: help demo test test-all nightly lint format lab bench clean core-environment test-environment notebook-environment

help:
	@echo "make demo    from events to a report, on simulated data; writes to data/demo/"
	@echo "make test    lint, types, tests, notebooks"
	@echo "make test-all  the tests on each of Python $(VERSIONS) that is installed"
	@echo "make lab     JupyterLab on the notebooks"
	@echo "make bench   benchmarks and profile, and the tables of README and docs from them"
	@echo "make lint    ruff and mypy only;  make format  puts the layout right"
	@echo "make nightly the long tests;      make clean   removes .venv and caches"

demo: core-environment
	@$(BIN)/eventlab demo $(DEMO)

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

# Folds read bytecode, which differs between versions of Python. Each has an environment, .venv-3.12 and so on.
test-all:
	@for version in $(VERSIONS); do \
	    if command -v python$$version >/dev/null && python$$version -c '' 2>/dev/null; then \
	        PYTHON=python$$version ENVIRONMENT=.venv-$$version .ci/environment test && \
	        .venv-$$version/bin/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS) || exit 1; \
	    else echo "Python $$version is not installed: skipped"; fi; \
	done

nightly: test-environment
	$(BIN)/python -m pytest -m slow $(TESTS)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n $(WORKERS) tests/laws tests/fold tests/store/test_state_machine.py

lint: test-environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

format: test-environment
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lab: notebook-environment
	$(BIN)/jupyter-lab notebooks

# The raw results name the machine and stay out of the repository; table.py keeps what the README shows.
bench: test-environment
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only --benchmark-json=.benchmarks/latest.json
	$(BIN)/python benchmarks/table.py .benchmarks/latest.json
	$(BIN)/python -m benchmarks.profile

clean:
	rm -rf .venv .venv-* .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache

core-environment:
	@.ci/environment

test-environment:
	@.ci/environment test

notebook-environment:
	@.ci/environment notebook
