# Two commands: `make book` and `make test`. Both create .venv on first use, need no answers, and
# stop at the first failure. Another Python or another set of versions:
#   make book PYTHON=python3.12
#   make test CONSTRAINTS=            (newest versions instead of the recorded ones)
PYTHON      ?= python3
CONSTRAINTS ?= constraints.txt
VENV        := .venv
BIN         := $(VENV)/bin
STAMP       := $(VENV)/.installed
HTML        := _build/html
# Two processes of one thread each: threads of several processes on the same cores wait for each other.
# Each begins with half of the tests, in their order, so that what a file shares is mostly made once;
# who is done first takes over tests of the other.
JOBS        ?= 2
DEALT       := -n $(JOBS) --dist worksteal
NBVAL       := --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-current-env \
               --nbval-cell-timeout 600 -p no:cacheprovider -n $(JOBS) --dist loadfile
CHAPTERS     = $(wildcard book/*.ipynb)
LONG_RUNS    = $(wildcard notebooks/*.ipynb)
NOT_SPELLED := ./.git,./.venv,./_build,./.*_cache,./runs,./book/_vendor,./tests/book/vendor,./book/_static/fonts,./book/_static/photo/*.js,./book/references.bib,*.ipynb,*.npz,*.safetensors,*.egg-info

# Checks and outputs are those of a machine without a GPU, wherever they run.
export CUDA_VISIBLE_DEVICES ?=
export PYTHONHASHSEED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Many short processes import the library: compile it once, also where the environment says not to.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help book html test lint unit nbval nbval-chapters nbval-notebooks browser look html-and-short execute studies env clean

help:
	@echo "make book      build the HTML book from the stored outputs and print where to open it"
	@echo "make test      everything that continuous integration checks"
	@echo "make execute   run the chapters and store their outputs"
	@echo "make studies   go on with the declared experiments, on a GPU if there is one; takes long"
	@echo "               e.g. make studies STUDIES=\"cam_baseline --jobs 4 --minutes 30\""
	@echo "parts of test: lint, unit, nbval, html, browser;  make clean removes what they built"

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here. Try: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, found $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "This Python cannot make environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[book,data,test]"
	@touch $@

env: $(STAMP)

# A fresh build each time: pages of the reference depend on the library, which Sphinx cannot see.
html: $(STAMP)
	@$(BIN)/jupyter-book --version | grep -q '1\.0\.' || \
	  { echo "Jupyter Book 1.0 is needed; version 2 ignores _config.yml"; exit 1; }
	rm -rf _build
	$(BIN)/jupyter-book build . -n -W --keep-going

book: html
	@echo
	@echo "The book is ready. Open this page in a browser:"
	@echo "  $$($(BIN)/python -c 'import pathlib; print(pathlib.Path("$(HTML)/index.html").resolve().as_uri())')"

lint: $(STAMP)
	$(BIN)/python -m pip check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell --skip "$(NOT_SPELLED)"
	$(BIN)/mypy

unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --ignore tests/book $(DEALT)

nbval: nbval-chapters nbval-notebooks

nbval-chapters: $(STAMP)
ifeq ($(CHAPTERS),)
	@echo "nbval: there are no chapters in book/ yet"
else
	OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest --nbval $(NBVAL) $(CHAPTERS)
endif

nbval-notebooks: $(STAMP)
ifeq ($(LONG_RUNS),)
	@echo "nbval: there are no notebooks in notebooks/"
else
	OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest --nbval-lax $(NBVAL) $(LONG_RUNS)
endif

browser: html look

look: $(STAMP)
	WSSS_LAB_BOOK_HTML=$(HTML) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/book -rs $(DEALT)

# Each of the two uses one core. What stands beside the build is kept, and shown after what that prints.
html-and-short: $(STAMP)
	@printed=$$(mktemp); { $(MAKE) --no-print-directory lint && \
	  $(MAKE) --no-print-directory nbval-notebooks JOBS=1; } >"$$printed" 2>&1 & beside=$$!; failed=0; \
	  $(MAKE) --no-print-directory html || failed=1; wait $$beside || failed=1; cat "$$printed"; rm "$$printed"; exit $$failed

test: html-and-short unit nbval-chapters look

execute: $(STAMP)
	CUDA_VISIBLE_DEVICES= $(BIN)/python book/_ext/execute.py $(CHAPTERS)

# Experiments are run on purpose only; an empty CUDA_VISIBLE_DEVICES would hide the GPU from them.
STUDIES ?= all
studies: $(STAMP)
	@[ -n "$$CUDA_VISIBLE_DEVICES" ] || unset CUDA_VISIBLE_DEVICES; \
	  $(BIN)/python -m wsss_lab.studies run $(STUDIES)

clean:
	rm -rf _build
