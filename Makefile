# make demo, make test: both from a bare machine with Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
FUZZ ?= 3000
BUDGET ?= 450

.PHONY: install demo example test test-slow test-long fuzz lint site bench bench-gpu clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[all,dev]' -c constraints.txt
	@touch $@

demo: $(READY)
	$(BIN)/python -m examples.demo --out demo

example: $(READY)
	$(BIN)/python -m examples.switching --out example

# What one process of the tests has compiled of these modules, the next one reads.
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY)
	$(BIN)/pytest -n $(WORKERS) -m 'not slow and not long'

test-slow: $(READY)
	SHAPES=1 XLA_FLAGS=--xla_backend_optimization_level=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile -m 'slow and not long'

test-long: $(READY)
	SHAPES=1 XLA_FLAGS=--xla_backend_optimization_level=1 $(BIN)/pytest -m long

fuzz: $(READY)
	FUZZ=$(FUZZ) $(BIN)/pytest -n $(WORKERS) tests/test_fuzz.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of docs/ in site/; a link that leads nowhere fails.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(READY)
	$(BIN)/unet bench
	$(BIN)/python -m benchmarks.conversion
	$(BIN)/python -m benchmarks.input --backend torch
	$(BIN)/python -m benchmarks.input --backend jax

# On one NVIDIA GPU, under 8 minutes; BUDGET=1800 leaves nothing out. Without a GPU, small networks on the CPU.
bench-gpu: $(READY)
	@! command -v nvidia-smi >/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check -e '.[cuda]' -c constraints.txt
	$(BIN)/python -m benchmarks.gpu_speed --budget $(BUDGET)

clean:
	rm -rf $(VENV) demo example bench-gpu.* build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
