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
ARCH ?= x86_64
TORCH ?= requirements-torch.lock

VENV := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DHS := $(VENV)/bin/dhs
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup lock lock-cluster run compare bricks stage-4a stage-4b stage-4c stage-4p5 import report gates show test test-slow check bench parity docs wheel bundle clean
.PHONY: faults test-spark35 test-spark41

NO_TORCH = pip found no CPU build of PyTorch: name the place where it lies in the configuration of pip, or say make setup TORCH= (without it the convolutional probes of dhs gates cannot run)

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv with everything in requirements.lock (Python 3.11; Java comes with it)

$(STAMP): requirements.lock requirements-torch.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, found %s" % sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(if $(TORCH),$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(TORCH) || (echo "$(NO_TORCH)"; exit 1))
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

lock:  ## write requirements.lock and those for clusters and for Spark 3.5 anew (needs uv)
	uv pip compile pyproject.toml --extra dev --generate-hashes --python-version 3.11 \
	  --custom-compile-command "make lock" -o requirements.lock
	$(MAKE) lock-cluster
	cp requirements.lock requirements-spark35.lock
	echo 'pyspark<3.6' | uv pip compile --no-config pyproject.toml - --extra dev --generate-hashes \
	  --python-version 3.11 --custom-compile-command "make lock" -o requirements-spark35.lock

lock-cluster:  # the base dependencies in the versions of requirements.lock, which the tests run with
	uv pip compile pyproject.toml --extra cluster --constraint requirements.lock --generate-hashes --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" -o requirements-cluster.lock

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

# Clusters on EMR (docs/emr.md). STAGE_URI=s3://… is where bundle and logs lie; CLUSTER=j-… adds the steps to a cluster
# that runs, else CONF=small (a name of conf/emr) makes one. GENERATIONS=gen5,gen7; ARGS=--dry-run sends nothing.
EMR_PLACE = $(if $(STAGE_URI),--stage-uri $(STAGE_URI)) $(if $(CONF),--cluster $(CONF)) $(if $(REGION),--region $(REGION))
EMR_RUN = $(EMR_PLACE) $(if $(filter s3://%,$(OUT)),--out $(OUT)) $(if $(DATA),--data $(DATA)) $(if $(PARENT),--parent $(PARENT)) $(BANKS)
EMR_SUBMIT = $(DHS) emr submit $(EMR_RUN) $(if $(CLUSTER),--cluster-id $(CLUSTER))
EMR_LOOK = $(if $(REGION),--region $(REGION))
EMR_NAMES = $(if $(GENERATIONS),--generations $(GENERATIONS))

emr-plan: $(STAMP)  ## what a cluster would do and cost, without asking AWS: [ARGS='--tasks 1e7 --hosts 1e6']
	@$(DHS) emr plan $(EMR_RUN) $(EMR_NAMES) $(ARGS)

emr-submit: $(STAMP)  ## all stages on a new cluster: STAGE_URI=… OUT=s3://… DATA=… PARENT=… [CONF=small CLUSTER=j-…]
	@$(EMR_SUBMIT) $(EMR_NAMES) $(ARGS)

emr-4a: $(STAMP)  ## one stage, as emr-submit: PARENT=…
	@$(EMR_SUBMIT) --stages 4a $(ARGS)

emr-4b: $(STAMP)  ## DATA=…
	@$(EMR_SUBMIT) --stages 4b $(ARGS)

emr-4c: $(STAMP)  ## GENERATION=gen7 [BANK=…]
	@$(EMR_SUBMIT) --stages 4c --generations $(GENERATION) $(ARGS)

emr-4p5: $(STAMP)  ## GENERATION=gen7
	@$(EMR_SUBMIT) --stages 4p5 --generations $(GENERATION) $(ARGS)

emr-status: $(STAMP)  ## this project's clusters, or CLUSTER=j-… [ARGS=--watch]
	@$(DHS) emr status $(CLUSTER) $(EMR_LOOK) $(ARGS)

emr-logs: $(STAMP)  ## CLUSTER=j-… STEP='4c gen7' [ARGS=--stderr]
	@$(DHS) emr logs $(CLUSTER) "$(STEP)" $(EMR_LOOK) $(ARGS)

emr-terminate: $(STAMP)  ## CLUSTER=j-… ARGS=--yes
	@$(DHS) emr terminate $(CLUSTER) $(EMR_LOOK) $(ARGS)

.PHONY: emr-plan emr-submit emr-4a emr-4b emr-4c emr-4p5 emr-status emr-logs emr-terminate

test: $(STAMP)  ## the tests, under 10 minutes on 2 cores
	$(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist loadgroup

test-slow: $(STAMP)  ## statistical and acceptance tests
	$(VENV)/bin/python -m pytest -m slow -s

faults: $(STAMP)  ## kill workers, executors, machines and drivers of a local cluster; ARGS="--only executor,driver"
	$(VENV)/bin/python tests/cluster/faults.py $(ARGS)

SPARK35 := .venv-spark35

$(SPARK35)/.installed: requirements-spark35.lock pyproject.toml
	$(PYTHON) -m venv $(SPARK35)
	$(SPARK35)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-spark35.lock
	$(SPARK35)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test-spark35: $(SPARK35)/.installed  ## the tests that use Spark, on Spark 3.5 (EMR 7), in an environment of its own
	$(SPARK35)/bin/python -m pytest -m "spark and not slow"
	$(SPARK35)/bin/python -m pytest -m slow tests/cluster -k outlives

test-spark41: $(STAMP)  ## the same on Spark 4.1 (EMR 8), the version of requirements.lock
	$(VENV)/bin/python -m pytest -m "spark and not slow"
	$(VENV)/bin/python -m pytest -m slow tests/cluster -k outlives

check: $(STAMP)  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP)  ## the goals of speed beside what is measured: [DATA=… PARENT=… BANK=…] [ARGS="--full --only kernel"]
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/measure_goals.py $(if $(DATA),--data $(DATA) --parent $(PARENT)) $(if $(BANK),--bank $(BANK)) $(ARGS)

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

wheel: bundle  ## dist/*.whl, without Spark, and dist/bundle
	cp dist/bundle/wheels/dark_halo_scope-*.whl dist/

bundle: $(STAMP)  ## dist/bundle: the wheel and its pinned dependencies for the nodes of a cluster [ARCH=aarch64]
	$(VENV)/bin/python bootstrap/make_bundle.py --arch $(ARCH)

clean:  ## remove caches (compiled kernels too) and build products; runs/ stays
	find pipeline -name '*.nb[ic]' -delete
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache spark-warehouse metastore_db
