# Every target sets up what it needs: a virtual environment of its own, made again when pyproject.toml changes.

SHELL := /bin/bash
# The first Python that runs and is new enough; a version manager's stand-in may exist and not run.
PYTHON ?= $(shell .ci/pythons | head -n 1)
VENV ?= .venv
BIN := $(VENV)/bin
BENCH_VENV ?= .venv-bench
WORKERS ?= 2
ARGS ?=

.PHONY: help demo test test-slow test-all test-lowest test-sdk-spans soak lint format types coverage bench clean

help:
	@echo "make demo         run the order service and print its traces"
	@echo "make test         run the test suite, README and documentation examples included"
	@echo "make test-slow    run the long tests"
	@echo "make test-all     run the test suite on every CPython 3.10-3.14 of this machine"
	@echo "make test-lowest  run the test suite on the oldest dependencies allowed"
	@echo "make test-sdk-spans  run the test suite over the spans of OpenTelemetry's SDK"
	@echo "make soak         make spans for a minute while everything fails, then account for each (ARGS='--seconds 10')"
	@echo "make lint         check style and formatting (make format mends)"
	@echo "make types        check types with mypy and pyright"
	@echo "make coverage     report the lines and branches no test runs"
	@echo "make bench        measure what tracing costs, next to its alternatives (ARGS=--quick for a glance)"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "tracekit needs CPython 3.10 or newer, and none was found (PYTHON=/path/to/python)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras: `make demo` need not install the checkers.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@

demo: $(VENV)/.installed-demo
	$(BIN)/tracekit demo $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) -m slow $(ARGS)

test-all:
	@failed=; \
	for python in $$(.ci/pythons --all); do \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "== CPython $$version"; \
		$(MAKE) --no-print-directory test PYTHON="$$python" VENV=".venv-$$version" || failed="$$failed $$version"; \
	done; \
	test -z "$$failed" || { echo "failed on CPython$$failed"; exit 1; }

test-lowest: .venv-lowest/.installed-lowest
	.venv-lowest/bin/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-sdk-spans: $(VENV)/.installed-test
	TRACEKIT_ENGINE=sdk $(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

.venv-lowest/.installed-lowest: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) .ci/lowest.py pyproject.toml >.venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/constraints.txt -e '.[test]'
	@touch $@

soak: $(VENV)/.installed-test
	$(BIN)/python -m tests.faults.soak $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-test
	$(BIN)/mypy
	$(BIN)/pyright

coverage: $(VENV)/.installed-test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# An environment of its own: some of the peers would look into the tests.
bench: $(BENCH_VENV)/.installed
	$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

$(BENCH_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

clean:
	rm -rf .venv .venv-* build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
