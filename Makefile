# Everything runs in .venv, which the first target makes. Needs python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NAME ?= help
# Slow tests that do without Ray: single ones are spread; of the others, whole files, each beside a Ray of its own.
SIDE_BY_SIDE := tests/segcore tests/search/sampling tests/search/study tests/test_cases.py tests/test_corruptions.py

.PHONY: demo test quick lint format schema bench clean help

help:
	@echo "make demo    search on the embedded synthetic data, on the CPU"
	@echo "make test    every test        make quick   the quick ones"
	@echo "make lint    ruff and mypy     make format  let ruff format"
	@echo "make bench NAME=...  one benchmark of tests/benchmarks/"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segsearch needs Python 3.11 or newer, found " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/segsearch run configs/quickstart.yaml --name demo-$$(date +%Y%m%d-%H%M%S)

test: quick
	$(BIN)/python -m pytest -m slow $(SIDE_BY_SIDE) --numprocesses auto --dist load
	$(BIN)/python -m pytest -m slow tests $(SIDE_BY_SIDE:%=--ignore=%) --numprocesses 2 --dist loadfile

quick: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(STAMP)
	$(BIN)/python -m search.config.load
	$(BIN)/python -m search.config.docs

bench: $(STAMP)
	@test -f tests/benchmarks/$(NAME).py || { echo "no benchmark '$(NAME)'; there are: $$(ls tests/benchmarks | sed -n 's/\.py$$//p' | tr '\n' ' ')"; exit 2; }
	PYTHONPATH=tests/support $(BIN)/python -P tests/benchmarks/$(NAME).py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
