# `make demo` and `make test` need nothing but Python 3.11 or newer; everything lands in .venv, runs/ and models/.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

RUN := runs/demo
MODELS := models
VARIANTS := dense sparse sparse-int8
BUNDLES := $(VARIANTS:%=$(MODELS)/demo/%/manifest.json)

.PHONY: demo models serve test lint check clean-models dashboards constraints system-deps help
.DELETE_ON_ERROR:
.NOTPARALLEL: # `demo` serves when everything is made, whatever MAKEFLAGS says

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: models serve ## train, prune, export and serve three variants on http://127.0.0.1:8000

models: $(BUNDLES) ## everything of the demo but serving

serve: | $(VENV)/.demo ## serve what is in models/
	@exec $(BIN)/sparsebert serve --models $(MODELS)

test: | $(VENV)/.test ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: | $(VENV)/.test ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## lint and test

system-deps: ## Debian's prometheus, with apt-get, for the tests that start one; without it they are skipped
	@tests/system-deps.sh

clean-models: ## remove the demo's models, checkpoints and half-done runs
	rm -rf $(RUN) $(MODELS)/demo

dashboards: | $(VENV)/.test ## write Grafana's dashboards anew
	$(BIN)/python -m deploy.grafana

constraints: ## pin the versions that pip would choose today
	$(PYTHON) -m venv .venv-new && .venv-new/bin/python -m pip install --quiet 'torch==2.13.*' -e '.[test,cluster]'
	{ head -1 constraints.txt; .venv-new/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; \
	  grep '^onnxruntime-' constraints.txt; } > constraints.new && mv constraints.new constraints.txt
	rm -rf .venv-new

$(RUN)/sparse/run.json: | $(VENV)/.demo
	$(BIN)/sparsebert train --recipe demo --output $(RUN)

$(MODELS)/demo/dense/manifest.json: $(RUN)/sparse/run.json
	$(BIN)/sparsebert export $(RUN)/dense --output $(@D)

$(MODELS)/demo/sparse/manifest.json: $(RUN)/sparse/run.json
	$(BIN)/sparsebert export $(RUN)/sparse --output $(@D)

$(MODELS)/demo/sparse-int8/manifest.json: $(RUN)/sparse/run.json
	$(BIN)/sparsebert export $(RUN)/sparse --precision int8 --output $(@D)

$(VENV)/.demo $(VENV)/.test: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PIP_INSTALL) --editable '.[$(patsubst .%,%,$(@F))]'
	@touch $@
