PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
LOCK = requirements.lock
UV = $(VENV)-uv/bin/uv

.PHONY: quickstart test check docs lock clean

quickstart: $(VENV)/.installed  ## set everything up, then audit the bundled organisms
	$(BIN)/auditor evaluate --budget 5

test: $(VENV)/.installed-dev  ## all tests that this machine can run
	$(PYTEST)

check: $(VENV)/.installed-dev  ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

docs: $(VENV)/.installed-dev  ## the site, into build/site; a broken link fails
	$(BIN)/python docs/reference.py
	$(BIN)/zensical build --clean --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Where there is no GPU, torch's CPU build: the registry's own brings 3 GB of CUDA along.
$(VENV)/.torch: $(VENV)/bin/python $(LOCK)
	@nvidia-smi >/dev/null 2>&1 || $(PIP) install -q --no-deps --retries 0 --timeout 10 \
		--index-url https://download.pytorch.org/whl/cpu "$$(grep '^torch==' $(LOCK))" 2>/dev/null || \
		echo "torch's CPU build cannot be reached: the registry's build comes instead, which is large"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) install -q -c $(LOCK) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -q -c $(LOCK) -e '.[dev]'
	@touch $@

# Two files at once, each with one thread in torch: much of what tests do is waiting for processes to start.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=active GOMP_SPINCOUNT=1000 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

TESTED = torch<=2.13.0# the newest of which the machines that test this have a CPU build

lock:  ## pin the newest packages that pyproject.toml admits, for every Python and system
	[ -x $(UV) ] || { $(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install -q uv; }
	echo '$(TESTED)' | $(UV) pip compile -q --universal -c - --upgrade --python-version 3.11 --extra dev --no-emit-package pip \
		--custom-compile-command 'make lock' pyproject.toml -o $(LOCK)

clean:
	rm -rf $(VENV) $(VENV)-uv build dist
