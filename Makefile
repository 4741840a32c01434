# Every target prepares the clone by itself (.ci/bootstrap.py): system packages, .venv, pinned requirements.
# It is safe to run any of them at any time; what is done already is not done again.

.DEFAULT_GOAL := help
.PHONY: help setup up demo test test-fast check soak bench-ingest bench-policy bench-edge bench-credentials bench-neighbors bench-neighbours clean python3

BIN := .venv/bin
ARGS ?=
WORKERS ?= 5
FAST := tests/policy tests/wire $(wildcard tests/edge/test_*.py) tests/orgs tests/acl tests/audit

# Where the environment forbids compiled files (many container images do), every process compiles Django again.
unexport PYTHONDONTWRITEBYTECODE

help: ## say what can be done here
	@echo "CloudSignal: make TARGET [ARGS=\"...\"]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

python3:
	@command -v python3 >/dev/null || { echo "setup: python3 is missing; install Python 3.11 or newer first" >&2; exit 1; }

setup: python3 ## install everything that development needs, nothing more
	@python3 .ci/bootstrap.py dev

up: python3 ## run CloudSignal on this machine (Ctrl-C stops it)
	@python3 .ci/bootstrap.py run
	@exec $(BIN)/cloudsignal up $(ARGS)

demo: python3 ## the same with two sample organizations and a small fleet
	@python3 .ci/bootstrap.py run
	@exec $(BIN)/cloudsignal up --demo $(ARGS)

test: setup ## run every test; ARGS="tests/edge -k mount" narrows it down
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup ## run what starts no process of its own: policy, wire, codec, session machine, services
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not soak and not processes" $(FAST) $(ARGS)

check: setup ## lint, types, layers, templates, missing migrations
	@.ci/check

soak: setup ## run the long tests
	@$(BIN)/python -m pytest -m soak --timeout=0 $(ARGS)

bench-policy: setup ## measure the policy core
	@$(BIN)/python -m tests.benchmarks.policy $(ARGS)

bench-ingest: setup ## measure how fast the audit takes events, as a ratio to a bare COPY
	@$(BIN)/python -m tests.benchmarks.ingest $(ARGS)

bench-edge: setup ## measure the edge as a ratio to the bare broker
	@$(BIN)/python -m tests.benchmarks.edge $(ARGS)

bench-credentials: setup ## measure how fast credentials are issued, checked and revoked
	@$(BIN)/python -m tests.benchmarks.credentials $(ARGS)

bench-neighbors: setup ## measure what one organization's attacks cost another
	@$(BIN)/python -m tests.benchmarks.neighbors $(ARGS)

bench-neighbours: bench-neighbors

clean: ## remove what was built here; never touches a data folder
	rm -rf .venv build staticfiles *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
