# Dark Halo Scope. `make` lists the targets.
OUT ?= runs/demo
DATA ?=
PARENT ?=
PRIME ?=
REAL ?=
BANK ?=
DEEP_BANK ?=
GENERATION ?= gen7
SOURCE ?=
COSMOS ?=
TASK ?=
SET ?= $(OUT)/phase4c/$(GENERATION)
ARGS ?=
TORCH ?= requirements-torch.lock

VENV := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DHS := $(VENV)/bin/dhs
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup lock run compare bricks stage-4a stage-4b stage-4c stage-4p5 import report gates show test test-slow check bench parity docs wheel clean

NO_TORCH = pip found no CPU build of PyTorch: name the place where it lies in the configuration of pip, or say make setup TORCH= (without it the convolutional probes of dhs gates cannot run)

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv with everything in requirements.lock (Python 3.11; Java comes with it)

$(STAMP): requirements.lock requirements-torch.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, found %s" % sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(if $(TORCH),$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(TORCH) || (echo "$(NO_TORCH)"; exit 1))
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

lock:  ## write requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --custom-compile-command "make lock" -o requirements.lock

BANKS := $(if $(BANK),--bank $(BANK)) $(if $(DEEP_BANK),--deep-bank $(DEEP_BANK))
INPUTS := $(if $(DATA),--data $(DATA) --parent $(PARENT)) $(BANKS)

run: $(STAMP)  ## every stage: two simulated bricks, or DATA=… PARENT=… [BANK=…] OUT=…
	$(DHS) run --out $(OUT) $(INPUTS) $(ARGS)

compare: $(STAMP)  ## 64 tasks through gen5 to uber, and the mosaic: DATA=… PARENT=… BANK=… DEEP_BANK=… OUT=…
	$(DHS) run --out $(OUT) --config compare $(INPUTS) $(ARGS)
	$(DHS) compare --out $(OUT)

bricks: $(STAMP)  ## fetch the survey's maps of a run's bricks: OUT=… DATA=… [ARGS="--jobs 4 --dry-run"]
	$(DHS) bricks fetch --out $(OUT) --data $(DATA) $(ARGS)

stage-4a: $(STAMP)  ## manifest: PARENT=… OUT=…
	$(VENV)/bin/python jobs/stage_4a_manifest.py --out $(OUT) --parent $(PARENT) $(ARGS)

stage-4b: $(STAMP)  ## host cutouts: DATA=… OUT=…
	$(VENV)/bin/python jobs/stage_4b_cutouts.py --out $(OUT) --data $(DATA) $(ARGS)

stage-4c: $(STAMP)  ## injection: GENERATION=gen7 [BANK=…] OUT=…
	$(VENV)/bin/python jobs/stage_4c_inject.py --out $(OUT) --generation $(GENERATION) $(BANKS) $(ARGS)

stage-4p5: $(STAMP)  ## compaction and splits: GENERATION=gen7 OUT=…
	$(VENV)/bin/python jobs/stage_4p5_compact.py --out $(OUT) --generation $(GENERATION) $(ARGS)

import: $(STAMP)  ## data of the earlier layouts: SOURCE=… OUT=…
	$(DHS) import $(SOURCE) --out $(OUT) $(ARGS)

report: $(STAMP)  ## OUT/report/index.html
	$(DHS) report --out $(OUT)

gates: $(STAMP)  ## what a data set lets a classifier cheat with: SET=<stamps>, or GENERATION=… OUT=…
	$(DHS) gates $(SET) $(ARGS)

show: $(STAMP)  ## one task with its truth and a picture: TASK=… OUT=…
	$(DHS) show $(TASK) --out $(OUT) $(ARGS)

test: $(STAMP)  ## the tests, under 10 minutes on 2 cores
	$(VENV)/bin/python -m pytest -m "not slow"

test-slow: $(STAMP)  ## statistical and acceptance tests
	$(VENV)/bin/python -m pytest -m slow -s

check: $(STAMP)  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP)  ## throughput of the stages beside a lenstronomy loop
	$(VENV)/bin/python benchmarks/throughput.py

parity: $(STAMP)  ## docs/parity.md: every kernel beside GalSim, lenstronomy and scipy
	$(VENV)/bin/python benchmarks/parity.py

docs: $(STAMP) parity  ## the figures and tables of docs/; those made of real data with REAL=<folder of real inputs> PRIME=<gated set of gen5_prime>
	$(VENV)/bin/python benchmarks/rendering_accuracy.py
	$(VENV)/bin/python benchmarks/mass_model_cost.py
	$(VENV)/bin/python docs/make_figures.py
	$(VENV)/bin/python docs/make_import_tables.py
	$(VENV)/bin/python docs/figures_gen7.py
	$(VENV)/bin/python docs/figures_lensing.py
	$(if $(REAL),$(VENV)/bin/python docs/figures_gen5.py $(REAL)/cosmos80)
	$(if $(REAL),$(VENV)/bin/python docs/make_gen6_figure.py --data $(REAL))
	$(if $(REAL),$(VENV)/bin/python docs/figures_gen8.py --data $(REAL))
	$(if $(REAL),$(VENV)/bin/python benchmarks/artifacts.py --data $(REAL))
	$(if $(REAL),$(VENV)/bin/python benchmarks/deep_size_bias.py --data $(REAL))
	$(VENV)/bin/python docs/make_core_table.py
	$(if $(PRIME),$(VENV)/bin/python docs/figures_gen5_prime.py $(PRIME))
	$(if $(PRIME),$(VENV)/bin/python docs/make_gate_tables.py $(PRIME)/_gates/gates.json)
	$(if $(PRIME),$(VENV)/bin/python benchmarks/hard_negatives.py $(PRIME))

wheel: $(STAMP)  ## dist/*.whl, without Spark
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .

clean:  ## remove caches (compiled kernels too) and build products; runs/ stays
	find pipeline -name '*.nb[ic]' -delete
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache spark-warehouse metastore_db
