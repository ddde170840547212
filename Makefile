# `make demo` does the main job, `make test` the tests; both set up what they need first.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
# What the demo runs, and no more; whoever has all has that.
SMALL_STAMP := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.set-up-small)

WS ?= $(HOME)/ros2_ws
# Processes that run tests.
WORKERS ?= 2
# What failed once more and alone: processes that wait for each other need both cores of a small machine.
AGAIN = { echo "== once more, what failed"; $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

.PHONY: help setup demo ros test coverage test-ros test-slow fuzz faults bench docs lint sample-drive clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## virtual environment with all extras, system packages; quick when already done

$(STAMP): scripts/setup.sh pyproject.toml setup.py constraints.txt
	PYTHON=$(PYTHON) VENV=$(VENV) bash scripts/setup.sh all
	touch $@

$(VENV)/.set-up-small: scripts/setup.sh setup.py constraints.txt
	PYTHON=$(PYTHON) VENV=$(VENV) bash scripts/setup.sh small
	touch $@

demo: $(SMALL_STAMP) ## the main job on the sample drive: masks, tracks, overlay video, report
	$(BIN)/amodal demo --out build/demo

test: setup ## lint, types and the quick tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" || $(AGAIN)

coverage: setup ## lines of amodal_core and amodal_ros that the quick tests run; fails under 90 %
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --cov --cov-config=pyproject.toml --cov-report=term

test-ros: setup ## the node, launch, fault and peer tests on a real ROS 2 (wheels of PyPI)
	VENV=$(VENV) WORKERS=$(WORKERS) bash scripts/test_ros.sh

ros: ## a ROS 2 workspace with amodal_ros built in it: make ros WS=~/ros2_ws
	bash scripts/install_ros.sh $(WS)

test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

# Minutes of `make fuzz`, of all parsers together.
MINUTES ?= 5
fuzz: setup ## every parser on spoilt inputs: make fuzz MINUTES=30; findings in build/fuzz
	PYTHONPATH=test $(BIN)/python -m fuzzing --minutes $(MINUTES)

faults: setup ## a live drive while each fault is injected; writes docs/reliability.md
	PYTHONPATH=test $(BIN)/python -m reliability

bench: setup ## the budgets; what users take instead: benchmarks/peers.py
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds

sample-drive: setup ## make data/sample_drive anew: the same bytes on the same machine
	rm -rf data/sample_drive
	$(BIN)/amodal synth data/sample_drive --frames 40 --length 40 --seed 28 --street urban \
	  --weather sun --size 540x163 --columns 1024 --fov 90 --grain 0.01 --noise 0.1

docs: setup ## the site in build/site; warnings are errors
	$(BIN)/python -c 'import mkdocs, material, mkdocstrings' 2>/dev/null || \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

lint: setup ## format and mend what ruff can mend
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean: ## what the build made; the virtual environment stays
	rm -rf build install log dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
