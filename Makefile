# One environment for everything; `make` needs CPython 3.11+ with venv and pip, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: demo test coverage lint docs bench clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) ".[dev]"
	touch $(STAMP)

## The main job on the default: environment, synthetic line, benchmark, report.
demo: $(STAMP)
	$(BIN)/andon demo demo

## Everything that must hold: unit, property and end-to-end tests. One thread a worker: two would fight for the processors.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

## The same, with the share of lines that ran; fails below the floor that pyproject.toml names.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --cov --cov-report=term

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## The documentation as a site that needs no network: site/index.html. A broken link or reference is an error.
docs: $(STAMP)
	$(INSTALL) ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

## Speed and memory, side by side with plain baselines (tens of minutes).
bench: $(STAMP)
	$(INSTALL) ".[bench]"
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo build dist site
