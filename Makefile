# Targets install what they need on a machine that has only Python, make and pip.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= .earmark-demo
# CPU=1 installs the same versions without the packages that only an NVIDIA card needs (give it to every target, or
# export it). TORCH=WHEELS names files or URLs of torch built for CPUs: the libraries that the usual torch is linked
# against are then left out as well. Only laion-clap needs torchvision, which must be built for the same torch: name its
# wheel as well, or do without.
LOCK := $(if $(CPU),requirements-cpu.lock,requirements.lock)
STAMP := $(VENV)/.installed$(if $(CPU),-cpu)
export HF_HUB_OFFLINE ?= 1
export FEAST_USAGE ?= False

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-all lint format bench lock docs demo-svg clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(STAMP): $(LOCK) pyproject.toml
	@command -v uv >/dev/null 2>&1 || $(PYTHON) -m uv --version >/dev/null 2>&1 || $(PYTHON) -m pip install --quiet uv \
	  || $(PYTHON) -m pip install --quiet --user --break-system-packages uv
	@command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 \
	  || echo "note: pdqhash is compiled where it is installed; without a C++ compiler this will fail (apt-get install g++)"
	@echo "installing the packages of $(LOCK) into $(VENV); the first time, this downloads several gigabytes"
	@UV=$$(command -v uv || echo "$(PYTHON) -m uv"); \
	  test -x $(BIN)/python || $$UV venv --quiet --python $(PYTHON) $(VENV); \
	  lock=$(LOCK); \
	  if test -n "$(TORCH)"; then \
	    lock=$(VENV)/without-torch.lock; \
	    awk '/^[^ #]/ {keep = !/^(torch==|torchvision==|torchcodec==|nvidia-|cuda-)/} keep' $(LOCK) > $$lock; \
	  fi; \
	  VIRTUAL_ENV=$(VENV) $$UV pip sync --quiet --require-hashes $$lock && \
	  { test -z "$(TORCH)" || VIRTUAL_ENV=$(VENV) $$UV pip install --quiet --no-deps $(TORCH); } && \
	  VIRTUAL_ENV=$(VENV) $$UV pip install --quiet --no-deps --no-build-isolation --editable .
	@# uv compiles no modules; every process would, where Python may not write beside them: four tenths of a small run's time.
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@rm -f $(VENV)/.installed*
	@touch $@

install: $(STAMP) ## Install Earmark and everything locked into .venv (CPU=1: without what only an NVIDIA card needs)

demo: install ## Build a catalogue of real media, enrich it and show what came out
	@$(BIN)/earmark demo --folder $(DEMO)

PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: install lint ## Lint, types and the tests that every change must pass
	$(PYTEST)

test-fast: install ## The tests that are not marked slow
	$(PYTEST) -m "not slow and not exhaustive and not gpu"

test-all: test ## What test runs, and the exhaustive suites (Feast's behaviour on every store, every kill point)
	$(PYTEST) -m "exhaustive and not gpu"

lint: install ## ruff, mypy and the imports between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

format: install ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Run every benchmark in its quick form (python -m bench NAME for the full one)
	$(BIN)/python -m bench --all --quick

docs: install ## Generate the feature dictionary and README's figures, from the results in docs/results
	$(BIN)/earmark dictionary > docs/feature-dictionary.md
	$(BIN)/python -m bench.results

demo-svg: install ## Generate the picture of the demo, docs/demo.svg
	$(BIN)/earmark demo --folder $(DEMO) --svg docs/demo.svg

COMPILE := uv pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes --no-emit-index-url \
	  --python-version 3.11 --quiet

lock: ## Make requirements.lock and requirements-cpu.lock from pyproject.toml
	$(COMPILE) --override overrides.txt --output-file requirements.lock
	$(COMPILE) --override overrides-cpu.txt --constraint requirements.lock --output-file requirements-cpu.lock

clean: ## Delete the environment and the demo
	rm -rf $(VENV) $(DEMO)
