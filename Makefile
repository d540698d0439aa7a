# Every target is one line over a real command; `make help` lists them.
PYTHON ?= python3
OTHER ?= python3.13
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
.DEFAULT_GOAL := help
.PHONY: help env up test test-load test-chaos e2e e2e-kind e2e-local test-tools test-rights test-other test-fast check lint types imports generated lock-fresh docs-sync format crds lock image chart sbom audit bench clean test-rust

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.synced: pyproject.toml uv.lock
	@$(PYTHON) scripts/bootstrap.py

env: .venv/.synced ## Create or update .venv from the lock file

up: env ## Run the quickstart on this machine, without a cluster
	@$(BIN)/beamline up examples/quickstart

test: env ## The whole suite, with every real part, and coverage
	@$(BIN)/python scripts/run_tests.py

test-load: env ## Load profiles steady, burst, ramp and soak, before a release (minutes)
	@$(PYTEST) tests/load -q -s -n 0

test-chaos: env ## Faults on purpose under load, before a release (minutes)
	@$(PYTEST) tests/chaos -q -s -n 0

test-tools: ## Chromium and Prometheus for the tests that drive them (Debian, root)
	@scripts/test_tools.sh

test-rights: env ## Cluster tests with the operators under the chart's own account: a ClusterRole, then Roles alone
	@for mode in cluster-role roles; do BEAMLINE_TEST_ACCOUNT=$$mode $(PYTEST) tests/cluster -q -n 2 --dist loadgroup || exit 1; done

test-other: env ## Unit and contract suites on another Python: make test-other OTHER=python3.13
	@UV_PROJECT_ENVIRONMENT=.venv-other $(BIN)/uv sync --frozen --all-extras --quiet --python $(OTHER) && .venv-other/bin/python -m pytest tests/unit tests/contract -q -n 2

e2e: env ## The end-to-end suite on a cluster: make e2e KUBECONFIG=path [CASE=words]
	@$(BIN)/python scripts/run_e2e.py

e2e-kind: env ## The same on a kind cluster that is made and deleted; needs docker or podman, kind, kubectl, helm
	@scripts/e2e_kind.sh

e2e-local: env ## The same on the one-node cluster of ../shared/cluster (Debian, root)
	@scripts/e2e_local.sh

test-fast: env ## Unit tests only: no server, a few seconds
	@$(PYTEST) tests/unit -q

test-rust: env ## The Rust example, built (minutes when cold), against the conformance suite
	@BEAMLINE_TEST_RUST=1 $(PYTEST) tests/integration/conformance/test_rust_extension.py -q

check: lint types imports generated lock-fresh docs-sync ## Everything that needs no server: lint, types, import contracts, generated files, lock, docs

lint: env ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: env ## mypy, strict
	@$(BIN)/mypy

imports: env ## Import contracts between and inside the components
	@$(BIN)/lint-imports

generated: env ## Generated files are fresh
	@$(BIN)/python scripts/generated.py --check

lock-fresh: env ## uv.lock agrees with pyproject.toml
	@$(BIN)/uv lock --check --quiet

docs-sync: env ## Pages exist, links resolve, suites are named in CI
	@$(BIN)/python scripts/check_docs_sync.py

format: env ## Format the code
	@$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

crds: env ## Write what is generated from code: CRDs, their reference, the OpenAPI document
	@$(BIN)/python scripts/generated.py --write

lock: ## Resolve the dependencies again into uv.lock
	@$(BIN)/uv lock

image: env ## Build the container image with docker, podman or buildah
	@$(BIN)/python scripts/build_image.py

chart: env ## Render, lint and check the Helm chart
	@$(PYTEST) tests/contract/chart -q

sbom: env ## Bill of materials (CycloneDX) and licences of what the image installs
	@$(BIN)/python scripts/supply_chain.py sbom

audit: env ## Known vulnerabilities of what the image installs; needs the network
	@$(BIN)/python scripts/supply_chain.py audit

bench: env ## Benchmarks, as ratios to baselines of the same run
	@$(BIN)/python -m bench.run

clean: ## Remove what builds and tests leave
	@rm -rf .venv .venv-other .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* dist build
