# `make train` and `make test` are all that a fresh machine needs: each makes its own .venv first.
PYTHON ?= python3
BIN := .venv/bin
# Two processes: what needs a cluster mostly waits, and the rest is tested beside it (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --durations 15

.PHONY: train test test-fast check docs

# Reinstalled when the dependencies change, and only then.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

train: .venv/installed
	$(BIN)/blitz train digits

test: .venv/installed
	$(PYTEST)

test-fast: .venv/installed
	$(PYTEST) -m 'not cluster and not slow'

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The guides and the API reference as a site: open site/index.html.
docs: .venv/docs
	$(BIN)/mkdocs build --quiet

.venv/docs: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
