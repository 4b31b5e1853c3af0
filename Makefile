# make demo     the whole pruning lab on handwritten digits, with its report
# make test     everything the project asserts
# make bench    netslim beside torch-pruning on 20 networks
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test bench lint install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/netslim -m experiment=lab4_digits

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install lint
	$(BIN)/python -m pytest

bench: install
	$(BIN)/python tests/benchmarks/slim_vs_rival.py --out outputs/benchmark/slim_vs_rival.md

clean:
	rm -rf $(VENV) build dist
