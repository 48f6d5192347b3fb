# `make help` lists what there is. Everything is installed into .venv on first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
APT := bubblewrap

.DEFAULT_GOAL := help
.PHONY: help setup system setup-gvisor demo up test test-unit test-integration test-acceptance test-security test-sandbox test-providers test-log test-log-full golden lint fmt types schemas compose-check bench-quick bench-sandbox lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(STAMP): deploy/locks/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/locks/installer.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r deploy/locks/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(STAMP)

setup: $(STAMP) system ## Install everything

system: ## Install what the sandbox needs from the distribution (as root, on Debian and its kin)
	@command -v bwrap >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    echo "installing $(APT)"; apt-get update -qq && apt-get install -y -qq --no-install-recommends $(APT) >/dev/null; \
	  else echo "bubblewrap is missing: install it with your package manager (apt-get install bubblewrap)" >&2; exit 1; fi; }

setup-gvisor: ## Install gVisor's runsc, for sandboxes of level 3 (as root, on Debian and its kin)
	@command -v runsc >/dev/null 2>&1 || deploy/gvisor/install.sh

demo: setup ## Repair a small repository end to end, on this machine (LEVEL=1 consents to the weaker sandbox)
	@$(BIN)/codeagent demo tests/fixtures/demo_repo $(if $(DATA_DIR),--data-dir $(DATA_DIR)) --allow-level $(or $(LEVEL),2)

up: setup ## Run everything on this machine until Ctrl-C (LEVEL, DATA_DIR as for demo)
	@$(BIN)/codeagent up $(if $(DATA_DIR),--data-dir $(DATA_DIR)) --allow-level $(or $(LEVEL),2)

test: setup lint ## All tests, with lint, types and contracts
	@$(BIN)/python -m pytest -n 2 --cache-clear || { test $$? = 1 && $(BIN)/python -m tests.second_look; }

test-unit: setup ## Tests without servers
	@$(BIN)/python -m pytest tests/unit tests/architecture

test-integration: setup ## Tests on real PostgreSQL and real brokers
	@$(BIN)/python -m pytest tests/contract tests/integration

test-acceptance: setup ## Tests of the whole system, processes killed included
	@$(BIN)/python -m pytest tests/acceptance

test-security: setup ## Attacks on the edge and the sandboxes, and a report of them (CASES=20000 requests drawn from the contract)
	@CODEAGENT_TEST_CASES=$(or $(CASES),20000) $(BIN)/python -m tests.security

test-sandbox: setup ## Every attack on every sandbox driver that runs here, then weakened ones, and a report (DRIVERS="bwrap runsc" have to run)
	@CODEAGENT_TEST_DRIVERS="$(DRIVERS)" $(BIN)/python -m tests.sandbox

golden: setup ## Record the golden runs of tests/golden again, after a change of what agents decide
	@CODEAGENT_TEST_RECORD=1 $(BIN)/python -m pytest -q tests/integration/workers/test_golden_recordings.py

test-providers: setup ## Every fault of vendors on every adapter, and a table of what it became
	@$(BIN)/python -m tests.providers

test-log: EVENTS ?= 20000
test-log: EXAMPLES ?= 100
test-log: setup ## The event log and what is kept from it on PostgreSQL 15 and 18, every tampering, proofs against another implementation (with Go)
	@CODEAGENT_TEST_GO=1 CODEAGENT_TEST_EVENTS=$(EVENTS) CODEAGENT_TEST_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -n 2 \
		tests/integration/backups tests/integration/eventlog tests/integration/projections tests/integration/transparency tests/unit/transparency \
		tests/integration/edge/test_log_tiles.py

test-log-full: EVENTS ?= 1000000
test-log-full: setup ## The log's acceptance: a history of a million events written, sealed, verified, kept live, dropped and made anew, on both PostgreSQLs (EVENTS)
	@CODEAGENT_TEST_EVENTS=$(EVENTS) $(BIN)/python -m pytest tests/integration/projections/test_whole_history.py

lint: setup ## Style, types, import contracts, generated files, compose files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

fmt: setup ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup ## Types only
	@$(BIN)/mypy

schemas: setup ## Write schemas/ and docs/configuration.md from the code
	@$(BIN)/codeagent schemas schemas
	@$(BIN)/codeagent config reference > docs/configuration.md

bench-quick: setup ## Ratios against bare PostgreSQL, Kafka and FastAPI, in about three minutes
	@$(BIN)/python -m benchmarks.quick

bench-sandbox: setup ## Start and throughput of sandboxes against a plain process and bwrap by hand, in under two minutes (as root)
	@$(BIN)/python -m benchmarks.sandbox

lock: ## Resolve dependencies anew into deploy/locks
	@sh deploy/locks/resolve.sh

clean: ## Remove what was installed and cached
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
