PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test check clean

quickstart: $(VENV)/.installed  ## set everything up, then audit the bundled organisms
	$(BIN)/auditor evaluate --budget 5

test: $(VENV)/.installed-dev  ## all tests that this machine can run
	OMP_WAIT_POLICY=active GOMP_SPINCOUNT=1000 $(BIN)/python -m pytest

check: $(VENV)/.installed-dev  ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_WAIT_POLICY=active GOMP_SPINCOUNT=1000 $(BIN)/python -m pytest

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -q -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist
