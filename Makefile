# make lab | run | test | ... (see help below). Each first makes .venv, when it is missing or requirements.txt has changed.
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu make setup    CPU wheels of torch: 1 GB instead of 6 GB
#   PYTHON=python3.12 make setup                                    another Python (3.10 to 3.14)
#   JOBS=1 make test                                                one notebook at a time, for less than 4 GB of free memory
#   make setup WHEELS="/media/me/stick/wheels"                      packages from that folder, without a network

SHELL := /bin/bash
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet $(if $(WHEELS),--no-index --find-links "$(WHEELS)")
STAMP := { cat requirements.txt; pwd; }
TOOLS := $(filter-out __init__,$(basename $(notdir $(wildcard tools/*.py))))
.DEFAULT_GOAL := help
.PHONY: help setup lab run test html notebooks lint clean $(TOOLS)

help:
	@echo 'make lab         open the notebooks in JupyterLab'
	@echo 'make run         execute every notebook, HTML pages into build/ (ARGS="01 04" for some)'
	@echo 'make test        unit tests, then every notebook as a test'
	@echo 'make html        the static site into build/html/: the notebooks as they are, a playground without a kernel'
	@echo 'make notebooks   execute in place on MNIST: the outputs that are committed'
	@echo 'make lint        ruff'
	@echo 'make clean       remove .venv, build/ and the cache of trained models (data/ stays)'
	@echo 'make TOOL        tools/TOOL.py, options in ARGS (ARGS=--help): $(TOOLS)'

# .venv is made anew when it does not start, and brought up to date when it was made elsewhere or from other requirements.
setup:
	@$(BIN)/python -c "" 2>/dev/null && $(STAMP) | cmp -s - .venv/made-from && exit 0; \
	[ -z "$(WHEELS)" ] || [ -d "$(WHEELS)" ] || { echo "There is no folder $(WHEELS), which WHEELS names: is the stick in?"; exit 1; }; \
	if ! $(BIN)/python -c "" 2>/dev/null; then \
	  $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 14) else f"Python {v[0]}.{v[1]} is {sys.executable}; the series needs 3.10 to 3.14. Try PYTHON=python3.12 make ...")' || exit 1; \
	  echo "Setting up .venv with $$($(PYTHON) --version) (once; some minutes and several GB, see TORCH_INDEX in the README)"; \
	  $(PYTHON) -m venv --clear .venv || { echo "No venv could be made: see above. If it misses ensurepip, on Debian and Ubuntu: apt install python3-venv"; exit 1; }; \
	fi; \
	if [ -n "$(TORCH_INDEX)" ] && [ -z "$(WHEELS)" ]; then $(PIP) --index-url "$(TORCH_INDEX)" torch torchvision || exit 1; fi; \
	$(PIP) -r requirements.txt && $(STAMP) > .venv/made-from && echo "Ready."

lab: setup
	$(BIN)/python -m jupyterlab --notebook-dir=notebooks

test: setup
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env -n $(JOBS) --dist loadscope

run: setup
	$(BIN)/python tools/refresh.py run $(ARGS)

html: setup
	$(BIN)/python tools/website.py $(ARGS)

notebooks: setup
	$(BIN)/python tools/refresh.py refresh $(ARGS)

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

$(TOOLS): %: tools/%.py setup
	$(BIN)/python $< $(ARGS)

clean:
	rm -rf .venv build cache .pytest_cache .ruff_cache .hypothesis *.egg-info
