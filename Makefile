# make demo     the whole pruning lab on handwritten digits, with its report
# make test     everything the project asserts
# make bench    netslim beside torch-pruning on 20 networks
# make bench-train   netslim's training beside a loop like the authors'
# make bench-modern  and beside one as it is written today
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test bench bench-train bench-modern lint install tools clean

PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

install: $(VENV)/installed
tools:   $(VENV)/tools

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/tools: $(VENV)/installed
	$(PIP) -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/netslim -m experiment=lab4_digits

lint: tools
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

bench: tools
	$(BIN)/python tests/benchmarks/slim_vs_torch_pruning.py --out outputs/benchmark/slim_vs_torch_pruning.md

bench-train: install
	$(BIN)/python tests/benchmarks/train_vs_plain.py --out outputs/benchmark/train_vs_plain.md

bench-modern: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/train_vs_modern.py

clean:
	rm -rf $(VENV) build dist
