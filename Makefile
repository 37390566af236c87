# Two commands for a start: `make simulate` and `make test`. Both set everything up by themselves.
PYTHON ?= python3
BIN := .venv/bin
RECIPE ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help simulate federation test longtest check format proto benchmark accuracy clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedtl needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv (once; torch is large, this takes a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/developed: .venv/installed
	@echo "Adding the tools for checks and tests"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,ray,tracking]'
	@touch $@

simulate: .venv/installed  ## Run the main job: five sites, a real backbone, differential privacy
	@$(BIN)/fedtl simulate $(RECIPE) $(ARGS)

federation: .venv/installed  ## Run a real federation on this machine: server, three guarded sites, TLS
	@$(BIN)/python simulations/federation.py $(ARGS)

test: .venv/developed  ## Run the tests
	@$(BIN)/python -m pytest -m 'not long' $(ARGS)

longtest: .venv/developed  ## Run the long tests: federations whose processes are killed, cut off and lied to
	@$(BIN)/python -m pytest -m long $(ARGS)

check: .venv/developed  ## Format, lint, types, layers, file sizes, doctests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/test_layers.py --doctest-modules fedtl

format: .venv/developed  ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

proto: .venv/developed  ## Write the agent's messages anew from agent.proto
	@$(BIN)/python -m grpc_tools.protoc -I fedtl/agent --python_out=fedtl/agent --pyi_out=fedtl/agent \
	  fedtl/agent/agent.proto

benchmark: .venv/developed  ## Measure speed and memory side by side with the peers
	@$(BIN)/python simulations/benchmarks/run.py $(ARGS)

accuracy: .venv/developed  ## Show accuracy with three seeds, by recipe
	@$(BIN)/python simulations/benchmarks/accuracy.py $(ARGS)

clean:  ## Remove the environment and caches of this folder (runs/ stays)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis simulations/benchmarks/.peers
