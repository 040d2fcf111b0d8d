# Everything runs in .venv, which is made on first use and brought up to date when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m

# Idle OpenMP threads that spin take the cores away from the loader's processes.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint clean

demo: $(VENV)/installed
	@$(VENV)/bin/boxcycle demo

# One process more than there are cores: some tests wait for servers, browsers and processes of their own.
test: $(VENV)/installed-dev
	@OMP_NUM_THREADS=1 PYTEST_XDIST_AUTO_NUM_WORKERS=$$(($$(getconf _NPROCESSORS_ONLN) + 1)) \
	  $(RUN) pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

clean:
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "no $(PYTHON) here; name a Python of version 3.10 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "boxcycle needs Python 3.10 or newer, found $$($(PYTHON) --version 2>&1); name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing boxcycle and what it needs into $(VENV); PyTorch is large, this takes some minutes."
	@$(RUN) pip install -qq --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing boxcycle, what it needs and its developers' tools into $(VENV); this takes some minutes."
	@$(RUN) pip install -qq --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/installed
