# Two commands: `make book` and `make test`. Both create .venv on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export CUDA_VISIBLE_DEVICES ?=
export PYTHONHASHSEED := 0

.PHONY: book test lint unit nbval clean help env

help:
	@echo "make book    build the HTML book and print where to open it"
	@echo "make test    everything that continuous integration checks"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, found $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[book,data,test]"
	@touch $@

env: $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest tests

clean:
	rm -rf _build
