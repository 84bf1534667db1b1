# Two commands do everything on a machine that has Python 3.11, pip, make and git:
#   make demo   on real data: find a learning rate, compare five schedules, write a report
#   make test   lint, types, the docs and the tests
# make test-slow runs the tests that take minutes, those that need other libraries and trainers,
# which it installs first, and the property tests with more examples. make docs builds the site.
# make test-gpu runs the tests that need a CUDA device, and prints overheads.
# make coverage lists the lines of src that the tests of make test do not run.
# make test-versions tests old and new versions of Python and packages, each in an environment that
# it removes, and writes docs/reference/supported-versions.md. It downloads gigabytes.
# PYTHONS="/path/to/python3.12 ..." names interpreters that are not on the PATH, and
# ENVIRONMENTS="torch-2.8 ..." selects rows of the page.
# The first call sets up .venv. PYTHON=/path/to/python and pip's settings (PIP_INDEX_URL, ...) pass
# through.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

PEERS := $(VENV)/.ready-peers

.PHONY: demo test test-slow test-gpu test-versions coverage docs lint clean

demo: $(READY)
	$(BIN)/ratecraft demo

test: lint docs
	$(BIN)/pytest -n 2 --dist worksteal

test-slow: $(PEERS)
	RATECRAFT_HYPOTHESIS=thorough $(BIN)/pytest -n 2 -m 'peers or slow or hypothesis' -rs tests
	$(BIN)/python docs/reference/supported_versions.py --print lowest-except-torch

test-gpu: $(READY)
	$(BIN)/pytest -m gpu -rs tests/gpu
	$(BIN)/python benchmarks/gpu_overhead.py

test-versions: $(READY)
	$(BIN)/python docs/reference/supported_versions.py $(ENVIRONMENTS)

# Fails below fail_under in pyproject.toml. Code in processes that tests start does not count.
coverage: $(READY)
	$(BIN)/pytest -n 2 --cov --cov-report=term-missing:skip-covered

docs: $(READY)
	$(BIN)/zensical build --clean --strict

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ratecraft needs Python 3.11 or newer; write make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

$(PEERS): $(READY)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,docs,peers]'
	@touch $@

clean:
	rm -rf $(VENV) ratecraft-demo site .cache
