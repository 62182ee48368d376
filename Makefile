# make demo   set up, reconstruct the example, look at examples/needle/output/
# make test   linters, type checker, all tests
# make test-quick   tests that are not marked slow, about 3.5 minutes
# make test-oldest  tests that are not slow, with the oldest Python and dependencies that pyproject.toml promises; OLDEST="--torch 2.13.0" for another torch
# make docs   the documentation as a site: site/index.html
# make benchmarks         CPU part of the published numbers, under an hour, goes on where it stopped; MOLECULES=library.h5 LONG=1 for all
# make benchmarks-quick   do the benchmarks work? Tiny sizes, under 5 minutes, results checked for sanity, not for speed
# make gpu                is a GPU right and how fast is it, training too: at most 25 minutes; MOLECULES=library.h5; GPU_FLAGS=--dry-run
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes, each with whole files of tests: few of them use a second core. Long files first (tests/conftest.py).
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo docs test test-quick test-oldest check format clean benchmarks benchmarks-quick gpu
.DELETE_ON_ERROR:

# constraints.txt pins what is installed here; astra-toolbox and the like are only needed by tests.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest $(WORKERS)

test-quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

test-oldest:
	$(PYTHON) tests/oldest.py $(OLDEST)

# One after the other: they would disturb each other's times.
benchmarks: $(VENV)/.installed-test
	$(BIN)/python benchmarks/run_all.py $(if $(MOLECULES),--molecules $(MOLECULES)) $(if $(LONG),--long)

benchmarks-quick: $(VENV)/.installed-test
	$(BIN)/python benchmarks/run_all.py --quick $(if $(MOLECULES),--molecules $(MOLECULES))

gpu: $(VENV)/.installed-test
	$(BIN)/python benchmarks/gpu.py $(if $(MOLECULES),--molecules $(MOLECULES)) $(GPU_FLAGS)

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python benchmarks/wrap.py README.md benchmarks/README.md docs/*.md

clean:
	rm -rf $(VENV) .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis examples/needle/output
