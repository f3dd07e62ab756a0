# `make demo` and `make test` need nothing but Python 3.11 or newer with pip. The first call makes a virtual environment
# in .venv and installs into it; later ones find the stamp and start at once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar on
RECIPE ?= recipes/mamba_reinforce.yaml

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help:
	@echo "make demo    train $(RECIPE) with its controls and show the result"
	@echo "make test    lint, types and the whole test suite"
	@echo "make lint    ruff and mypy only"
	@echo "make format  let ruff write the layout"
	@echo "make bench   every benchmark of benchmarks/"
	@echo "make clean   take the virtual environment away"

demo: $(VENV)/.run.stamp
	$(BIN)/reorder run $(RECIPE)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: $(VENV)/.test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test.stamp
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

# A stamp is newer than pyproject.toml when what it asks for is installed.
$(VENV)/.run.stamp: pyproject.toml | $(BIN)/python
	@echo "installing reorder and what it needs into $(VENV) (torch is large: a few minutes the first time)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.test.stamp: pyproject.toml | $(BIN)/python
	@echo "installing reorder with its test and dev extras into $(VENV) (torch is large: a few minutes the first time)"
	$(PIP) --editable ".[test,dev]"
	@touch $@ $(VENV)/.run.stamp

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "reorder needs Python 3.11 or newer: try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) has no working venv module: install it (Debian and Ubuntu: apt install python3-venv), or try make PYTHON=…"; exit 1; }

clean:
	rm -rf $(VENV)
