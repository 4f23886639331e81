# Targets install what they need on a machine that has only Python, make and pip.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= .earmark-demo
export HF_HUB_OFFLINE ?= 1
export FEAST_USAGE ?= False

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-all lint format bench lock docs clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.lock pyproject.toml
	@command -v uv >/dev/null 2>&1 || $(PYTHON) -m uv --version >/dev/null 2>&1 || $(PYTHON) -m pip install --quiet uv \
	  || $(PYTHON) -m pip install --quiet --user --break-system-packages uv
	@command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 \
	  || echo "note: pdqhash is compiled where it is installed; without a C++ compiler this will fail (apt-get install g++)"
	@UV=$$(command -v uv || echo "$(PYTHON) -m uv"); \
	  test -x $(BIN)/python || $$UV venv --quiet --python $(PYTHON) $(VENV); \
	  VIRTUAL_ENV=$(VENV) $$UV pip sync --quiet --require-hashes requirements.lock && \
	  VIRTUAL_ENV=$(VENV) $$UV pip install --quiet --no-deps --no-build-isolation --editable .
	@# uv compiles no modules; every process would, where Python may not write beside them: four tenths of a small run's time.
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

install: $(VENV)/.installed ## Install Earmark and everything locked into .venv

demo: install ## Build a catalogue of real media, enrich it and show what came out
	@$(BIN)/earmark demo --folder $(DEMO)

PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: install lint ## Lint, types and the tests that every change must pass
	$(PYTEST)

test-fast: install ## The tests that are not marked slow
	$(PYTEST) -m "not slow and not exhaustive and not gpu"

test-all: test ## What test runs, and the exhaustive suites (Feast's behaviour on every store, every kill point)
	$(PYTEST) -m "exhaustive and not gpu"

lint: install ## ruff, mypy and the rooms' imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

format: install ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Run every benchmark in its quick form (python -m bench NAME for the full one)
	$(BIN)/python -m bench --all --quick

docs: install ## Generate the feature dictionary
	$(BIN)/earmark dictionary > docs/feature-dictionary.md

lock: ## Make requirements.lock from pyproject.toml
	uv pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes --no-emit-index-url \
	  --override overrides.txt --python-version 3.11 --quiet --output-file requirements.lock

clean: ## Delete the environment and the demo
	rm -rf $(VENV) $(DEMO)
