# The two commands of the README are `make demo` and `make test`. Each makes its own virtual environment, installs into
# it and runs; a second run starts at once, because a stamp remembers what was installed.
#
#   PYTHON=python3.12   the Python to build the environment with (default: the newest of 3.10 to 3.13 found)
#   VENV=DIR            the environment of test, check, benchmark and wheel (default .venv)
#   TORCH=SPEC          what pip is asked for as PyTorch
#   TORCH_INDEX=URL     a further package index for PyTorch; empty for none
#   TESTS=PATH          which tests to run (default: all);  JOBS=N  how many at a time
#   BENCHMARK=NAME      which script of Testing/benchmarks to run;  ARGS="..."  its options
#   DATA=DIR            the golden data of the tests (default ../shared); tests that need it skip without it

SHELL := /bin/sh
.SUFFIXES:
.DEFAULT_GOAL := help

VENV ?= .venv
DEMO_OUTPUT ?= demo-output
TESTS ?= Testing
BENCHMARK ?= synthseg_cost
JOBS ?= 2
DATA ?= $(if $(MRI_DEEP_TOOLS_SHARED),$(MRI_DEEP_TOOLS_SHARED),../shared)

# PyTorch goes in first and by itself: asked for without a version on Linux, it brings gigabytes of CUDA libraries.
# Where no NVIDIA driver is loaded, PyTorch's own index offers the CPU build, which is a tenth of that; if that index
# cannot be reached, pip says so and goes on with the others. What PyTorch needs comes with the package afterwards.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),$(if $(wildcard /proc/driver/nvidia/version),,https://download.pytorch.org/whl/cpu))

# The demo needs none of the developers' tools; it shares the developers' environment where that is complete.
DEMO_VENV ?= $(if $(wildcard $(VENV)/.installed-dev),$(VENV),.venv-demo)
DEMO_EXTRA := $(if $(filter $(VENV),$(DEMO_VENV)),dev,demo)

BIN := $(VENV)/bin
# Two test processes with one thread each: as many as the smallest machine has cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) MRI_DEEP_TOOLS_SHARED="$(DATA)" $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-slow test-nnunet test-processes check format benchmark wheel clean

help:
	@echo "make demo       run every task on sample data, write a report into $(DEMO_OUTPUT)"
	@echo "make test       run the tests"
	@echo "make test-slow  run the tests that take minutes"
	@echo "make test-nnunet  install nnU-Net as well, train it on toy pictures, stop it, segment and score"
	@echo "make test-processes  train in two processes (gloo): the same losses as in one"
	@echo "make check      formatting, linting and static types"
	@echo "make format     format the code and mend what the linter can mend"
	@echo "make benchmark  measure time and memory of the pipelines"
	@echo "make wheel      build the package into dist/"
	@echo "make clean      remove what these commands made, environments included"

demo: $(DEMO_VENV)/.installed-$(DEMO_EXTRA)
	$(DEMO_VENV)/bin/mri-deep-tools demo "$(DEMO_OUTPUT)" --overwrite
	@echo "Open $(abspath $(DEMO_OUTPUT))/report.html in a browser."

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(TESTS)

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow $(TESTS)

# One at a time: each of these tests starts two processes itself.
test-processes: $(VENV)/.installed-dev
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow Testing/core/test_two_processes.py

test-nnunet: $(VENV)/.installed-nnunet
	$(ONE_THREAD) $(BIN)/python -m pytest Testing/translate/test_nnunet_chain.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.installed-dev
	$(BIN)/python Testing/benchmarks/$(BENCHMARK).py $(ARGS)

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist ./MRIDeepTools

clean:
	rm -rf .venv .venv-demo dist build MRIDeepTools/build MRIDeepTools/*.egg-info "$(DEMO_OUTPUT)"
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find MRIDeepTools Testing -name __pycache__ -type d -prune -exec rm -rf {} +

# One rule makes both kinds of environment: VENV/.installed-dev and VENV/.installed-demo.
%/.installed-dev: MRIDeepTools/pyproject.toml
	$(call install,$*,dev)

%/.installed-demo: MRIDeepTools/pyproject.toml
	$(call install,$*,demo)

# nnU-Net is no part of the developers' environment. It asks for torchvision, through a package whose networks are not
# used here; PyTorch and NumPy stay as they are, and a torchvision whose build does not fit that PyTorch goes again, or
# Lightning would not start.
$(VENV)/.installed-nnunet: $(VENV)/.installed-dev
	$(BIN)/python -c 'from importlib.metadata import version; print(*(f"{n}=={version(n)}" for n in ("torch", "numpy")), sep="\n")' >"$@.txt"
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--timeout 15 --retries 1 --extra-index-url $(TORCH_INDEX)) --constraint "$@.txt" --editable "./MRIDeepTools[nnunet]"
	$(BIN)/python -c 'import torchvision' 2>"$@.txt" || $(BIN)/python -m pip uninstall --yes torchvision
	@rm -f "$@.txt"
	@touch "$@"

# A name on PATH is not enough: it must start, be 3.10 to 3.13 and be able to make environments (Debian keeps that part
# in python3-venv). An environment that was left half made is made anew; a whole one is used as it is.
define install
	@found=; usable=; \
	if ! "$(1)/bin/python" -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3.10 python3); do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then \
	      found="$$python"; \
	      if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then usable="$$python"; break; fi; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make: error: no Python 3.10 to 3.13 was found; install one (Debian: apt-get install python3 python3-venv) or name it with PYTHON=..." >&2; exit 2; \
	  fi; \
	  if [ -z "$$usable" ]; then \
	    echo "make: error: $$found cannot make virtual environments; install that part (Debian: apt-get install python3-venv)" >&2; exit 2; \
	  fi; \
	  echo "Making $(1) with $$("$$usable" --version)"; \
	  "$$usable" -m venv --clear "$(1)" || exit 2; \
	fi
	"$(1)/bin/python" -m pip install --no-deps $(if $(TORCH_INDEX),--timeout 15 --retries 1 --extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	"$(1)/bin/python" -m pip install --editable "./MRIDeepTools[$(2)]"
	@touch "$@"
endef
