PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test zoo check clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv and install the package with all that its tests need (once)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"$(PYTHON) is Python %d.%d, and 3.11 or newer is needed: make setup PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

demo: setup ## train, prune and recover a small network on generated images, and print before and after
	$(BIN)/seg-pruning fit --config configs/demo.yaml

test: check ## all checks, then all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

zoo: setup ## prune every decoder with every encoder, then 5,000 random networks: an hour or more on two cores
	@mkdir -p runs
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo --json runs/zoo.json
	OMP_NUM_THREADS=1 RANDOM_NETWORKS=5000 $(BIN)/python -m pytest tests/surgery/test_random_networks.py

check: setup ## format, lint, types and the order of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove .venv and the caches of the tools; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
