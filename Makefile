# `make train` and `make test` are all that a fresh machine needs: each makes its own .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-fast check

# Reinstalled when the dependencies change, and only then.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

train: .venv/installed
	$(BIN)/python -m jobs.train digits

test: .venv/installed
	$(BIN)/python -m pytest

test-fast: .venv/installed
	$(BIN)/python -m pytest -m 'not cluster and not slow'

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
