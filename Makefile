# Everything runs in a private environment, .venv, made from requirements/locked.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH_VENV := .venv-torch
TORCH_READY := $(TORCH_VENV)/.ready

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-fast test-slow test-pipelines test-long pipeline-demo pipeline-demo-docs lint format
.PHONY: bench-quality bench-quality-full bench-peers bench-synthetic results-docs
.PHONY: bench-speed bench-speed-docs bench-joint bench-tasks bench-input lock wheel clean help

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(READY)  ## MPT-Rec on the full Census-income data: two stages, a report
	$(BIN)/python examples/census_income.py

pipeline-demo: $(READY)  ## The TFX pipelines on the same data: three versions, a report each
	$(BIN)/python examples/census_pipelines.py

pipeline-demo-docs: $(READY)  ## The same, and its figures for docs/
	$(BIN)/python examples/census_pipelines.py --docs docs

test: test-fast test-slow test-pipelines  ## All tests but the long ones (25 minutes on two cores)

# A file's tests share trainings and runs, so a file stays with one worker. Its default order, most
# tests first, would leave the longest files for the end.
BY_FILE := --numprocesses auto --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## The unit tests only
	$(BIN)/python -m pytest $(BY_FILE) tests/unit

test-slow: $(READY)  ## The end-to-end tests only
	$(BIN)/python -m pytest $(BY_FILE) tests/e2e

test-pipelines: $(READY)  ## The TFX pipelines for real
	$(BIN)/python -m pytest $(BY_FILE) tests/pipelines

test-long: $(READY)  ## The long ones, such as notebooks and every row of Census-income
	$(BIN)/python -m pytest $(BY_FILE) -m long

lint: $(READY)  ## Lint, format check, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-speed: $(READY) $(TORCH_READY)  ## Training speed against PyTorch, in turns (15 minutes)
	$(BIN)/python benchmarks/speed.py --output runs/bench-speed

bench-joint: $(READY)  ## A new task by prompt tuning against joint retraining (long)
	$(BIN)/python benchmarks/joint_retraining.py --output runs/bench-speed

bench-tasks: $(READY)  ## What a task costs, in training and serving
	$(BIN)/python benchmarks/many_tasks.py --output runs/bench-speed

bench-input: $(READY)  ## Rows a second and memory of streamed input; docs/input_throughput.md
	$(BIN)/python benchmarks/input_throughput.py

bench-speed-docs: $(READY)  ## docs/performance.md from what these three measured last
	$(BIN)/python benchmarks/performance_docs.py --results runs/bench-speed

bench-quality: $(READY)  ## Experiments 1 and 2, two seeds, one epoch, as a check (30 minutes)
	$(BIN)/python -m mptrec_cli bench run experiments/stage1.yaml experiments/new_task.yaml \
	  --seeds 2 --new-tasks 1 --epochs 1 --no-tuning --output runs/bench-quality
	$(BIN)/python -m mptrec_cli bench report experiments/stage1.yaml experiments/new_task.yaml \
	  --results runs/bench-quality --html runs/bench-quality/report.html

bench-quality-full: $(READY)  ## All experiments on Census-income, five seeds, to docs/results (hours)
	$(BIN)/python -m mptrec_cli bench run experiments/*.yaml --output runs/bench \
	  --results docs/results

bench-peers: $(READY)  ## The external variants of experiments/peers.yaml, five seeds (hours)
	$(BIN)/python benchmarks/peer_quality.py

SYNTHETIC := runs/synthetic

bench-synthetic: $(READY)  ## That experiments run on the formats of Ali-CCP and Byte-Rec
	for data in ali-ccp byte-rec; do \
	  $(BIN)/python -m mptrec_cli data generate $$data --rows 50000 \
	    --output $(SYNTHETIC)/raw/$$data && \
	  $(BIN)/python -m mptrec_cli data prepare $$data --source $(SYNTHETIC)/raw/$$data \
	    --output $(SYNTHETIC)/$$(echo $$data | tr - _) || exit 1; \
	done
	$(BIN)/python -m mptrec_cli bench run experiments/synthetic/*.yaml --output runs/bench-synthetic

# In the order of the page.
EXPERIMENTS := stage1 new_task ablations third_task continual gbdt peers

results-docs: $(READY)  ## docs/results.md from the stored results
	$(BIN)/python -m mptrec_cli bench report $(EXPERIMENTS:%=experiments/%.yaml) --results docs/results \
	  --title Results --markdown docs/results.md --html runs/results.html

lock: $(READY)  ## Resolve the lock file anew; versions that still fit stay
	$(BIN)/uv pip compile --quiet --override requirements/overrides.txt --generate-hashes \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-index-url \
	  setup.py requirements/beside.in --all-extras --output-file requirements/locked.txt

wheel: $(READY)  ## Build a wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## Remove the environment and what runs wrote
	rm -rf $(VENV) $(TORCH_VENV) .venv-peers runs build dist

# uv installs in half a minute what takes pip five; where it cannot reach the index, pip does it.
$(READY): requirements/locked.txt requirements/uv.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps \
	  --require-hashes --requirement requirements/locked.txt \
	  || $(BIN)/python -m pip install --no-deps --require-hashes --requirement requirements/locked.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# PyTorch, for comparison, is no part of the library's environment.
$(TORCH_READY): requirements/torch.txt
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --requirement requirements/torch.txt
	touch $@
