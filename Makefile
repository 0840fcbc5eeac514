# Everything is done with one virtual environment, .venv, and the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := test
# Whole files, so that what a file's tests share is made once, in the order that tests/conftest.py gives.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# torch is installed first and by its exact version: asked for so, pip takes a CPU build where one
# is at hand; inside a looser request it may choose a build with gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

.PHONY: install
install: $(VENV)/.installed  ## create .venv and install the pinned dependencies

.PHONY: demo
demo: $(VENV)/.installed  ## a small study on generated images, and its figures
	@$(BIN)/ablation train -m sweeps=demo
	@$(BIN)/ablation report study=demo

.PHONY: test
test: $(VENV)/.installed  ## the test suite, about 6 minutes on two cores
	$(BIN)/python -m pytest $(TWO_WORKERS)

.PHONY: test-slow
test-slow: $(VENV)/.installed  ## the tests that take long
	$(BIN)/python -m pytest -m slow

.PHONY: test-faults
test-faults: $(VENV)/.installed  ## kill, interrupt, fill disks, cut off the server: about 30 minutes on two cores
	$(BIN)/python -m pytest tests/faults -m fault -n 2

.PHONY: bench
bench: $(VENV)/.installed  ## timings, as ratios within one run
	$(BIN)/python -m pytest -m bench -s

.PHONY: lint
lint: $(VENV)/.lint  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: coverage
coverage: $(VENV)/.installed  ## the test suite with the lines that it runs counted
	$(BIN)/python -m pytest $(TWO_WORKERS) --cov --cov-report=term --cov-report=xml

.PHONY: docs
docs: $(VENV)/.docs  ## the documentation as a site in site/, links checked
	$(BIN)/mkdocs build --strict

# What lint, test and docs need, in one step: pip resolves the dependencies once. For CI.
.PHONY: install-all
install-all: $(VENV)/.all

$(VENV)/.all: pyproject.toml constraints.txt
	$(MAKE) $(VENV)/.installed EXTRAS=dev,docs
	@touch $(VENV)/.lint $(VENV)/.docs $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: ui
ui: $(VENV)/.installed  ## MLflow's UI on the store in this folder
	$(BIN)/ablation ui
