# Everything that developers and CI run. `make` alone lists the targets; each sets up what it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
# The name changes with the lock file and with the checkout's place, to which an environment is bound: after a change of
# either, the next target sets up anew, whichever it is.
STAMP := $(VENV)/.installed-$(shell { pwd; cat requirements-dev.lock; } | cksum | cut -d ' ' -f 1)

# The public protos as callers have them, without comments.
RELEASED := protos/released.binpb

PYTEST_ARGS ?=
TEST_WORKERS ?= 2
EXECUTORS ?= 1
SEED ?= 1
SECONDS ?= 120
SEEDS ?= 1000
BUG ?=
ROUNDS ?= 3
BENCH_VENV := .cache/bench
BENCH_STAMP := $(BENCH_VENV)/.installed-$(shell { pwd; cat requirements-bench.lock; } | cksum | cut -d ' ' -f 1)
UV_VERSION := 0.13.9
LOCK_VENV := .cache/lock
LOCK_OPTIONS := --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url

export PYTHON

.PHONY: help setup run test test-unit test-contract test-integration test-e2e test-deploy test-node chaos bench
.PHONY: bench-quick docs simulate
.PHONY: proto proto-check proto-release fmt lint type check lock clean

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
	@$(PY) -m pytest tests -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

test-unit: $(STAMP) ## Run the tests without IO
	@$(PY) -m pytest tests/unit $(PYTEST_ARGS)

test-contract: $(STAMP) ## Run each port's suite over its fake and its real adapter
	@$(PY) -m pytest tests/contract $(PYTEST_ARGS)

test-integration: $(STAMP) ## Run the tests against real servers
	@$(PY) -m pytest tests/integration $(PYTEST_ARGS)

test-e2e: $(STAMP) ## Run the tests of the whole system
	@$(PY) -m pytest tests/e2e $(PYTEST_ARGS)

test-deploy: $(STAMP) ## Run the tests of manifests, image and settings
	@$(PY) -m pytest tests/deploy $(PYTEST_ARGS)

test-node: $(STAMP) ## Run the tests of a client in Node, which is installed if it is not there
	@sh tests/node/install.sh
	@$(PY) -m pytest tests/node/run_client.py -q -s

test-monitoring: $(STAMP) ## Test alerts and dashboard against a real Prometheus, which is installed if it is not there
	@sh tools/install_prometheus.sh $(CURDIR)/.cache/prometheus
	@PROMETHEUS_FOLDER=$(CURDIR)/.cache/prometheus $(PY) -m pytest tests/monitoring $(PYTEST_ARGS)

chaos: $(STAMP) ## Break things at random under load and check the promises (SEED=1 SECONDS=120)
	@CHAOS_SEED=$(SEED) CHAOS_SECONDS=$(SECONDS) $(PY) -m pytest tests/chaos --timeout 0 -s $(PYTEST_ARGS)

simulate: $(STAMP) ## Simulate seeds in virtual time and check every step (SEED=1 SEEDS=1000 BUG=...)
	@$(PY) -m tests.simulation --first $(SEED) --seeds $(SEEDS) $(if $(BUG),--bug $(BUG))

bench: $(STAMP) $(BENCH_STAMP) ## Run the benchmarks, and write their figures into docs/performance.md (ROUNDS=3)
	@$(PY) -m bench --rounds $(ROUNDS) --page docs/performance.md

bench-quick: $(STAMP) $(BENCH_STAMP) ## Run the benchmarks briefly, under two minutes on a quiet machine
	@$(PY) -m bench --quick

$(BENCH_STAMP): $(STAMP)
	@echo "bench: the peers' packages"
	@$(PY) -m venv --clear $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r requirements-bench.lock
	@touch $@

##@ Check

check: proto-check lint type test ## Run all that needs nothing but Python

lint: $(STAMP) ## Check style, protos and who imports whom
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/buf lint
	@$(VENV)/bin/lint-imports

type: $(STAMP) ## Check types
	@$(PY) -m mypy

proto-check: $(STAMP) ## Check that libs/gen is up to date, the protos' format, and that no released caller breaks
	@$(PY) tools/generate_protos.py --check
	@$(VENV)/bin/buf format --diff --exit-code
	@$(VENV)/bin/buf breaking --against $(RELEASED)

##@ Change

proto: $(STAMP) ## Generate libs/gen from protos/
	@$(VENV)/bin/buf format --write
	@$(PY) tools/generate_protos.py

proto-release: $(STAMP) ## Note the public protos as released: what proto-check holds later changes against
	@$(VENV)/bin/buf breaking --against $(RELEASED)
	@$(VENV)/bin/buf build --exclude-source-info --path protos/punctual/v1 --output $(RELEASED)

docs: $(STAMP) ## Generate docs/settings.md, docs/metrics.md, and the alerts as a Kubernetes object
	@$(PY) -m tools.settings_page
	@$(PY) -m tools.metrics_page
	@$(PY) -m tools.prometheus_rule

fmt: $(STAMP) ## Format the code and the protos
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .
	@$(VENV)/bin/buf format --write

lock: $(STAMP) ## Resolve the dependencies of pyproject.toml anew into the lock files
	@test -x $(LOCK_VENV)/bin/uv || { $(PY) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/pip install -q uv==$(UV_VERSION); }
	@$(LOCK_VENV)/bin/uv pip compile $(LOCK_OPTIONS) -o requirements.lock pyproject.toml
	@$(LOCK_VENV)/bin/uv pip compile $(LOCK_OPTIONS) -o requirements-dev.lock pyproject.toml --group dev
	@$(LOCK_VENV)/bin/uv pip compile $(LOCK_OPTIONS) -o requirements-bench.lock --group bench

clean: ## Remove caches, build results and the local stack's data
	@rm -rf .data .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist bench/out
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
