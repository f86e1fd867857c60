# make demo: install and run the main job.  make test: install and pass the tests.  The rest is for those who stay: `make help`.
SHELL := bash
PYTHON ?= python3
PORT ?=
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# glibc: keep large tensors in the heap instead of mapping and unmapping them at every step; read before Python starts.
export MALLOC_MMAP_THRESHOLD_ := 4000000000
export MALLOC_TRIM_THRESHOLD_ := 16000000000
export MALLOC_TOP_PAD_ := 268435456
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint drift lab ui record bench gpu hooks readme notebooks export clean

help:        ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP)   ## the environment alone

$(STAMP): settings.ini constraints.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...")'
	@echo "[1/2] environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/2] packages (about 3 GB; minutes the first time, seconds afterwards)"
	@PIP_USE_PEP517=1 $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: $(STAMP)    ## install, then the main job
	@$(BIN)/wysiwyg demo

test: $(STAMP)    ## install, then drift check, lint, every notebook, every test
	@echo "[1/3] notebooks, modules and README agree"
	@$(MAKE) --no-print-directory drift
	@echo "[2/3] lint"
	@$(MAKE) --no-print-directory lint
	@echo "[3/3] notebooks and tests"
	@$(BIN)/python -m pytest tests -n $(WORKERS) --max-worker-restart 0 --dist loadgroup --no-loadscope-reorder

drift: $(STAMP)   ## would clean + export + readme change anything?
	@$(BIN)/python scripts/drift.py

lint: $(STAMP)    ## ruff: errors, and the format of everything that is not generated
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

export: $(STAMP)  ## format and clean the notebooks, write the modules and the README
	@$(BIN)/python scripts/drift.py names && $(BIN)/ruff format . && $(BIN)/nbdev_clean && $(BIN)/nbdev_export && $(BIN)/python scripts/readme.py

readme: $(STAMP)  ## README.md from nbs/index.ipynb
	@$(BIN)/python scripts/readme.py

notebooks: $(STAMP)  ## run every notebook again and save its outputs (WORKERS=2, NB=nbs/02_camera.ipynb for one)
	@$(BIN)/python scripts/notebooks.py run --save --workers $(WORKERS) $(NB)
	@$(MAKE) --no-print-directory export

record: $(STAMP)  ## train tiny, measure it, the shipped generator and its ablations again (data/results), two to three hours on two cores
	@$(BIN)/wysiwyg eval --n 500 --record shipped
	@$(BIN)/wysiwyg eval --n 500 --untrained --record start
	@$(BIN)/wysiwyg eval --network data/heads64/generator.safetensors --n 500 --record heads64
	@for seed in 0 1 2; do \
	  OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 -m wysiwyg.cli train --cfg tiny --train.seed $$seed --outdir runs/tiny_$$seed --resume latest && \
	  $(BIN)/wysiwyg eval --network runs/tiny_$$seed/generator.safetensors --n 200 --record tiny_$$seed || exit; done
	@$(BIN)/wysiwyg eval --network runs/tiny_0/generator.safetensors --n 200 --untrained --record tiny_start
	@cp "$$(ls runs/tiny_0/snapshot-*.png | tail -n 1)" data/results/tiny.png
	@$(BIN)/wysiwyg objects --cameras prior --outdir runs/sets
	@for method in eg3d mimic3d imagenet3d; do \
	  if [ $$method = imagenet3d ]; then data="--data runs/sets/objects64.zip"; else data=; fi; \
	  $(BIN)/wysiwyg train --method $$method --cfg tiny $$data --outdir runs/$${method}_tiny --resume latest && \
	  $(BIN)/wysiwyg eval --network runs/$${method}_tiny/generator.safetensors --n 200 --record $${method}_tiny && \
	  $(BIN)/wysiwyg eval --network runs/$${method}_tiny/generator.safetensors --n 200 --untrained --record $${method}_start && \
	  cp "$$(ls runs/$${method}_tiny/snapshot-*.png | tail -n 1)" data/results/$${method}_tiny.png || exit; done
	@$(BIN)/wysiwyg train --method imagenet3d --cfg tiny --backbone.label_dim 0 --heads.focal 4.2647 --outdir runs/imagenet3d_heads --resume latest
	@$(BIN)/wysiwyg eval --network runs/imagenet3d_heads/generator.safetensors --n 200 --record imagenet3d_heads
	@$(BIN)/wysiwyg eval --network runs/imagenet3d_heads/generator.safetensors --n 200 --untrained --record imagenet3d_heads_start
	@cp "$$(ls runs/imagenet3d_heads/snapshot-*.png | tail -n 1)" data/results/imagenet3d_heads.png
	@$(BIN)/wysiwyg ablate --study a02_samples --views 8 --repeats 2 --n 128 --record a02_samples
	@$(BIN)/wysiwyg ablate --study a01_paper_table --images 64 --n 128 --seeds 0,1,2,3,4,5 --record a01_paper_table
	@$(BIN)/wysiwyg ablate --study a03_proposal_cost --images 2000 --views 16 --seeds 0,1,2 --record a03_proposal_cost
	@$(BIN)/wysiwyg ablate --study a04_tightness --images 64 --n 64 --seeds 0,1,2 --set few=4 --set betas=.0008,.0015,.003,.015 --set weights=0,100,10000 --record a04_tightness
	@$(BIN)/wysiwyg ablate --study a05_cost --repeats 5 --set sides=128,256,512 --set train_sides=64,128 --record a05_cost
	@$(BIN)/wysiwyg ablate --study a06_generalisation --views 2 --seeds 0,1,2 --record a06_generalisation
	@$(BIN)/wysiwyg ablate --study a07_sampler_knobs --views 4 --seeds 0,1,2 --set taus=.8,.9,.95,.98,.995,1 --set blurs=0,.5,1,2,4 --set bins=24,96,192 --set slopes=1,1.5,2,4 --record a07_sampler_knobs
	@$(BIN)/wysiwyg ablate --study a08_loss_weights --images 32 --n 64 --seeds 0,1,2 --set few=4 --set factors=0,.1,10 --record a08_loss_weights
	@$(BIN)/wysiwyg ablate --study a09_lighting --images 64 --n 64 --heads 400 --views 2 --seeds 0,1,2 --record a09_lighting
	@$(BIN)/wysiwyg ablate --study a10_beyond --views 12 --repeats 3 --images 400 --n 64 --seeds 0,1,2 --set side=128 --record a10_beyond
	@$(BIN)/wysiwyg ablate --study a11_training_budget --images 96 --n 64 --heads 4000 --seeds 0,1,2 --repeats 2 --set scratch=800 --set few=4 --set batch=8 --set side=128 --record a11_training_budget
	@$(BIN)/wysiwyg ablate --study a20_systems --heads 4000 --seeds 0,1,2 --repeats 2 --n 128 --set seconds=240 --set places=8 --set few=4 --set path=64 --set steps=30 --set inverted=wysiwyg,eg3d,mimic3d,imagenet3d --record a20_systems
	@$(BIN)/wysiwyg ablate --study a21_ingredients --heads 4000 --seeds 0,1,2 --n 128 --set trained_on=2400,1000,1600 --set few=8 --set path=64 --record a21_ingredients

bench: $(STAMP)   ## kernels, frames and training steps on the CPU beside their alternatives (data/results/bench_*cpu.json), minutes
	@$(BIN)/python scripts/bench.py
	@$(BIN)/python scripts/bench.py --train

gpu:         ## all that wants a GPU: tests, compute-sanitizer, benchmarks, training throughput (OUT=folder for the results)
	@OUT="$(OUT)" bash scripts/gpu.sh

# JupyterLab's defaults here: no questions about news, no look for newer versions.
$(VENV)/share/jupyter/lab/settings/overrides.json: $(STAMP)
	@mkdir -p $(@D)
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $@

lab: $(VENV)/share/jupyter/lab/settings/overrides.json   ## JupyterLab on 127.0.0.1 (PORT=8888)
	@$(BIN)/jupyter lab --ip 127.0.0.1 --port $(or $(PORT),8888) --notebook-dir "$(CURDIR)" --LabApp.default_url=/lab/tree/nbs/tour.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

ui: $(STAMP)      ## MLflow on 127.0.0.1 (PORT=5000), with a link to each study
	@$(BIN)/wysiwyg ui --port $(or $(PORT),5000)

hooks: $(STAMP)   ## git: check before each commit, readable notebook diffs, notebook merges
	@git config core.hooksPath .githooks
	@git config diff.ipynb.textconv '$(BIN)/python scripts/notebooks.py text'
	@git config merge.nbdev-merge.driver '$(BIN)/nbdev_merge %O %A %B %P'
	@echo "hooks are on; off again with: git config --unset core.hooksPath"

clean:       ## caches and builds; environment, runs and data stay
	@rm -rf build dist _proc _docs .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find nbs wysiwyg tests scripts -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
