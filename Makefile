# `make demo` and `make test` set themselves up on a fresh machine; see CONTRIBUTING.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Spinning threads cost a shared machine dearly.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/samsemiseg demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -q -rs --durations=10

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch comes first and by itself: without a GPU its CPU build suffices, and naming the version
# keeps pip from choosing a newer build with gigabytes of CUDA libraries where a CPU one lies ready.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || \
	  if command -v nvidia-smi >/dev/null; then $(BIN)/pip install -q torch; \
	  else $(BIN)/pip install -q torch==2.13.0 || $(BIN)/pip install -q torch; fi
	$(BIN)/pip install -q -e ".[test]"
	# Slicer's own MRML and Qt, for the module's tests; there are no wheels for every platform.
	$(BIN)/pip install -q -e ".[slicer-test]" 2>/dev/null || \
	  echo "slicer-core or PySide6 is missing: the module's tests will be skipped"
	# SAM 2's networks, for their tests. Built by itself the package would fetch a second torch of
	# gigabytes, and its torchvision is of use to its predictors alone.
	$(BIN)/pip install -q setuptools wheel iopath hydra-core 2>/dev/null && \
	  SAM2_BUILD_CUDA=0 $(BIN)/pip install -q --no-deps --no-build-isolation sam2==1.1.0 \
	  2>/dev/null || echo "sam2 is missing: its tests will be skipped"
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
