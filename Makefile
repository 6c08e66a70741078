# The verbs of this repository. `make demo` and `make test` need Python 3.11 or newer and make, nothing else.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
STAMP := $(VENV)/.setup
# the machine's own certificates, so that a proxy with one of its own is trusted too
UV := $(BIN)/uv --system-certs
UV_VERSION = $(shell sed -n 's/^\(uv==[^ ]*\).*/\1/p' $(LOCK))

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-distributed test soak lint format bench lock services docs dashboard clean

help: ## show these verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP) ## build .venv from the lock; a second call does nothing

$(STAMP): $(LOCK) pyproject.toml
	@test -n "$(PYTHON)" || { echo "labelfeed needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
		$(BIN)/python -m pip install -q "$(UV_VERSION)"; }
	@# compiled once here: where PYTHONDONTWRITEBYTECODE is set, every process would do so at its start
	@$(UV) pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes $(LOCK)
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## import the files in examples/inbox, and show what came of them
	@mkdir -p .demo
	@$(BIN)/labelfeed run --once --config examples/labelfeed.yaml || test $$? -eq 1

demo-distributed: $(STAMP) ## the same with a bucket, Kafka, Redis and PostgreSQL, and each role in processes of its own
	@$(BIN)/python -m deploy.demo

test: $(STAMP) ## run every check and every test
	$(MAKE) -s lint
	$(BIN)/python -m pytest $(ARGS)

soak: $(STAMP) ## an hour of random kills on real servers, 50 deadly files, and 2,000,000 updates; SECONDS=… for another time
	LABELFEED_SOAK=$(or $(SECONDS),3600) $(BIN)/python -m pytest tests/faults/test_soak.py tests/ledger/test_bloat.py \
		tests/faults/test_objects.py::test_files_that_kill_their_worker -s $(ARGS)
	LABELFEED_SOAK_TASKS=$(or $(TASKS),50000) LABELFEED_WIRE_MINUTES=$(or $(MINUTES),5) \
		$(BIN)/python -m pytest tests/deliveries/test_delivery_soak.py tests/deliveries/test_wire.py -s $(ARGS)

lint: $(STAMP) ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## put the code into its form
	$(BIN)/ruff check -q --fix-only .
	$(BIN)/ruff format -q .

bench: $(STAMP) ## measure, against bare loops in the same run
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(STAMP) ## write the lock again from pyproject.toml
	$(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--all-extras --group dev pyproject.toml -o $(LOCK) $(ARGS)
	$(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--all-extras --group build -c $(LOCK) pyproject.toml -o requirements/runtime.txt $(ARGS)

services: $(STAMP) ## install and start the servers that some tests need
	$(BIN)/python -m deploy.services $(or $(ARGS),up)

docs: $(STAMP) dashboard ## write the pages that are made from the code, and the dashboard
	$(BIN)/python docs/reference.py

dashboard: $(STAMP) ## write the dashboard for Grafana, which is made from the table of metrics
	$(BIN)/python -m deploy.grafana.dashboard

clean: ## forget what was built and what the demo left
	rm -rf .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
