# Everything that developers and CI run. `make` alone lists the targets; each sets up what it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
# The name changes with the lock file and with the checkout's place, to which an environment is bound: after a change of
# either, the next target sets up anew, whichever it is.
STAMP := $(VENV)/.installed-$(shell { pwd; cat requirements-dev.lock; } | cksum | cut -d ' ' -f 1)

PYTEST_ARGS ?=
EXECUTORS ?= 1
SEED ?= 1
SECONDS ?= 60
UV_VERSION := 0.13.9
LOCK_VENV := .cache/lock
LOCK_OPTIONS := --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url

export PYTHON

.PHONY: help setup run test test-unit test-contract test-integration test-e2e chaos bench bench-quick
.PHONY: proto proto-check fmt lint type check lock clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Run

setup: $(STAMP) ## Make .venv from the lock file (every target does it by itself)

$(STAMP):
	@sh tools/install.sh $@

run: $(STAMP) ## Run everything in this terminal and show a job fire (EXECUTORS=1)
	@$(PY) -m tools.devstack --executors $(EXECUTORS)

##@ Test

test: $(STAMP) ## Run all tests (PYTEST_ARGS=...)
	@$(PY) -m pytest tests $(PYTEST_ARGS)

test-unit: $(STAMP) ## Run the tests without IO
	@$(PY) -m pytest tests/unit $(PYTEST_ARGS)

test-contract: $(STAMP) ## Run each port's suite over its fake and its real adapter
	@$(PY) -m pytest tests/contract $(PYTEST_ARGS)

test-integration: $(STAMP) ## Run the tests against real servers
	@$(PY) -m pytest tests/integration $(PYTEST_ARGS)

test-e2e: $(STAMP) ## Run the tests of the whole system
	@$(PY) -m pytest tests/e2e $(PYTEST_ARGS)

chaos: $(STAMP) ## Break things at random under load and check the promises (SEED=1 SECONDS=60)
	@CHAOS_SEED=$(SEED) CHAOS_SECONDS=$(SECONDS) $(PY) -m pytest tests/chaos --timeout 0 -s $(PYTEST_ARGS)

bench: $(STAMP) ## Run the benchmarks
	@$(PY) -m bench

bench-quick: $(STAMP) ## Run the benchmarks briefly
	@$(PY) -m bench --quick

##@ Check

check: proto-check lint type test ## Run all that CI runs

lint: $(STAMP) ## Check style, protos and who imports whom
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/buf lint
	@$(VENV)/bin/lint-imports

type: $(STAMP) ## Check types
	@$(PY) -m mypy

proto-check: $(STAMP) ## Check that libs/gen is what protos/ generates, and the protos' format
	@$(PY) tools/generate_protos.py --check
	@$(VENV)/bin/buf format --diff --exit-code

##@ Change

proto: $(STAMP) ## Generate libs/gen from protos/
	@$(VENV)/bin/buf format --write
	@$(PY) tools/generate_protos.py

fmt: $(STAMP) ## Format the code and the protos
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .
	@$(VENV)/bin/buf format --write

lock: $(STAMP) ## Resolve the dependencies of pyproject.toml anew into both lock files
	@test -x $(LOCK_VENV)/bin/uv || { $(PY) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/pip install -q uv==$(UV_VERSION); }
	@$(LOCK_VENV)/bin/uv pip compile $(LOCK_OPTIONS) -o requirements.lock pyproject.toml
	@$(LOCK_VENV)/bin/uv pip compile $(LOCK_OPTIONS) -o requirements-dev.lock pyproject.toml --group dev

clean: ## Remove caches, build results and the local stack's data
	@rm -rf .data .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist bench/out
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
