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
.PHONY: help setup lab run test test-browser html bench badges stick from-stick notebooks reference lint clean

help:
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make run         execute every notebook, HTML pages into build/ (NOTEBOOKS=\"01 04\" for some)"
	@echo "make test        unit tests, then every notebook as a test"
	@echo "make html        pages of the notebooks as they are, nothing executed, into build/html/"
	@echo "make test-browser  moves every slider of 03 in JupyterLab, in headless Chromium"
	@echo "make bench       how fast, beside well-known recipes (PARTS=\"training speed\" for some)"
	@echo "make badges      writes the links to Colab and Binder, from the git remote"
	@echo "make notebooks   execute in place on MNIST: the outputs that are committed"
	@echo "make reference   measure the reference results: three seeds on MNIST, five on the digits"
	@echo "make stick STICK=folder       data, trained models, the series (WHEELS=1: packages, too) to hand round"
	@echo "make from-stick STICK=folder  puts data and models from there in place; packages, too, without a network"
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

html: setup
	$(BIN)/python -m vae_utils.notebooks html $(NOTEBOOKS)

bench: setup
	$(BIN)/python -m vae_utils.bench $(PARTS)

badges: setup
	$(BIN)/python -m vae_utils.address

# Playwright drives a Chromium that is installed already (Debian: apt install chromium); nothing else needs either.
test-browser: setup
	@$(BIN)/python -c "import playwright" 2>/dev/null || $(BIN)/python -m pip install --quiet playwright
	$(BIN)/python -m pytest tests/browser

test: setup
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env

notebooks: setup
	$(BIN)/python -m vae_utils.notebooks refresh $(NOTEBOOKS)

reference: setup
	PYTHONPATH=. $(BIN)/python tests/reference.py $(NOTEBOOKS)

stick: setup
	@test -n "$(STICK)" || { echo "Where to? make stick STICK=/media/me/stick/vae"; exit 1; }
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m vae_utils.handout make "$(STICK)" $(if $(WHEELS),--wheels)

# pip splits a list of folders at blanks, which the names of sticks often have: hence the link.
from-stick:
	@test -d "$(STICK)" || { echo "From where? make from-stick STICK=/media/me/stick/vae"; exit 1; }
	@if [ -d "$(STICK)/wheels" ]; then \
	  link="$$(mktemp -d)" && ln -s "$$(cd "$(STICK)/wheels" && pwd)" "$$link/wheels" || exit 1; \
	  PIP_NO_INDEX=1 PIP_FIND_LINKS="$$link/wheels" $(MAKE) --no-print-directory setup; made=$$?; rm -r "$$link"; exit $$made; \
	else $(MAKE) --no-print-directory setup; fi
	$(BIN)/python -m vae_utils.handout use "$(STICK)"

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

clean:
	rm -rf .venv build cache .pytest_cache .ruff_cache .hypothesis
