# make lab | run | test | notebooks | reference | lint | clean
# Every target sets up .venv first when it is missing or requirements.txt has changed.
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu make lab     CPU wheels of torch: 1 GB instead of 6 GB
#   PYTHON=python3.12 make lab                                     another Python (3.10 to 3.14)

SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
NOTEBOOKS ?=
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup lab run test notebooks reference lint clean

help:
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make run         execute every notebook, HTML pages into build/ (NOTEBOOKS=\"01 04\" for some)"
	@echo "make test        unit tests, then every notebook as a test"
	@echo "make notebooks   execute in place on MNIST: the outputs that are committed"
	@echo "make reference   measure the reference results: seeds 0, 1, 2 on both data sets"
	@echo "make lint        ruff"
	@echo "make clean       remove .venv, build/ and the cache of trained models (data/ stays)"

# A venv is current when it still starts and was made from these very requirements.
setup:
	@if ! { $(BIN)/python -c "" && cmp -s requirements.txt .venv/requirements.installed; } 2>/dev/null; then \
	  $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 14) else f"Python {v[0]}.{v[1]} is {sys.executable}; the series needs 3.10 to 3.14. Try PYTHON=python3.12 make ...")' || exit 1; \
	  echo "Setting up .venv with $$($(PYTHON) --version) (once; some minutes and several GB, see TORCH_INDEX in the README)"; \
	  $(PYTHON) -m venv --clear .venv || { echo "No venv could be made. On Debian and Ubuntu: apt install python3-venv"; exit 1; }; \
	  if [ -n "$(TORCH_INDEX)" ]; then \
	    echo "Installing torch and torchvision from $(TORCH_INDEX)"; \
	    $(BIN)/python -m pip install --quiet --index-url "$(TORCH_INDEX)" torch torchvision || exit 1; \
	  fi; \
	  echo "Installing requirements.txt"; \
	  $(BIN)/python -m pip install --quiet -r requirements.txt || exit 1; \
	  cp requirements.txt .venv/requirements.installed; \
	  echo "Ready."; \
	fi

lab: setup
	$(BIN)/python -m jupyterlab --notebook-dir=notebooks

run: setup
	$(BIN)/python -m vae_utils.notebooks run $(NOTEBOOKS)

test: setup
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env

notebooks: setup
	$(BIN)/python -m vae_utils.notebooks refresh $(NOTEBOOKS)

reference: setup
	PYTHONPATH=. $(BIN)/python tests/reference.py $(NOTEBOOKS)

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

clean:
	rm -rf .venv build cache .pytest_cache .ruff_cache .hypothesis
