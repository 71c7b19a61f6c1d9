# make install   .venv with everything, and the `swiftres` command in it
# make demo      the main job on simulated particles, by command line and in a Scipion project
# make test      the tests of some minutes; test-all adds the slow ones, test-gui those that open windows (Xvfb)
# make lint      ruff, mypy and the import contracts
#
# MODEL=...      atomic model (PDB or mmCIF) for `make demo`; OUTPUT=... its folder (default: demo_output)
# PYTHON=...     the Python to build .venv with (3.10 to 3.12; the first suitable one is found by itself)
# FAISS=cpu|gpu  which build of faiss; by default gpu where an NVIDIA driver is installed, else cpu

.DEFAULT_GOAL := install
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
FAISS ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
PIP := $(BIN)/python -m pip install --prefer-binary -c constraints.txt

.PHONY: install test test-all test-gui demo lint benchmark clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt setup.py .ci/requirements.py
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed (make install PYTHON=/path/to/python3.11)"; exit 1; }
	@$(PYTHON) -c 'import tkinter' || { echo "This Python has no tkinter, which Scipion needs (Debian: apt install python3-tk)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) with the $(FAISS) build of faiss; this takes some minutes the first time."
	$(PIP) -q torch
ifeq ($(FAISS),gpu)
	$(PIP) -q -e '.[test]'
else
	$(BIN)/python .ci/requirements.py test > $(VENV)/requirements.txt
	$(PIP) -q -r $(VENV)/requirements.txt
	$(PIP) -q --no-deps -e .
endif
	@touch $@
	@echo "Installed: $(BIN)/swiftres"

test: install
	$(BIN)/python -m pytest -m "not slow and not gui"

test-all: install
	$(BIN)/python -m pytest -m "not gui"

test-gui: install
	$(BIN)/python -m pytest -m gui

demo: install
	$(BIN)/python -m swiftres_plugin.demo $(if $(MODEL),--model "$(MODEL)") $(if $(OUTPUT),--output "$(OUTPUT)")

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

benchmark: install
	@for f in benchmarks/bench_*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
