# make help lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run watch check status why predict cluster cluster-down test bench bench-quick diagram lint format lock clean venv venv-dev
SHELL := /bin/bash -o pipefail

# The virtual environment; one that exists elsewhere can be named: make run VENV=~/envs/slurm
VENV ?= .venv
BIN := $(abspath $(VENV))/bin

# The study that watch, check, status and why look at: make status CONFIGFILE=config/mine.yaml
STUDY := $(if $(CONFIGFILE),--configfile $(CONFIGFILE))

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: venv  ## set up, train the lesson's MLP and CNN on this machine, write results/report.html
	@$(BIN)/python scripts/watch.py -- $(BIN)/snakemake --profile profiles/local

watch: venv  ## show the progress of the runs while they train, here or on Slurm
	@$(BIN)/python scripts/watch.py $(STUDY)

check: venv  ## ask Slurm whether it would take the jobs of config/ with profiles/slurm
	@$(BIN)/python scripts/check.py $(STUDY)

status: venv  ## show the runs by experiment and seed: Slurm state, epoch, accuracy
	@$(BIN)/python scripts/status.py $(STUDY)

why: venv  ## explain one run: make why RUN=cnn/seed1
	@$(BIN)/python scripts/status.py $(STUDY) --why $(or $(RUN),$(error name a run: make why RUN=cnn/seed1))

predict: venv  ## classify image files: make predict IMAGE=digit.png MODEL=results/runs/cnn/seed1
	@$(BIN)/python scripts/predict.py --model $(or $(MODEL),results/runs/cnn/seed1) \
	    $(or $(IMAGE),$(error name a file: make predict IMAGE=digit.png))

cluster:  ## start a throw-away Slurm on this machine (root, Debian or Ubuntu)
	@tests/cluster/slurm up

cluster-down:  ## stop it and remove its files
	@tests/cluster/slurm down

test: venv-dev  ## set up with the test tools, run all tests (as root: on a throw-away Slurm too)
	@$(BIN)/python -m pytest

bench: venv-dev  ## measure this project against the lesson's plain script (under an hour)
	@$(BIN)/python tests/bench/bench.py

bench-quick: venv-dev  ## measure only the quick parts (some minutes)
	@$(BIN)/python tests/bench/bench.py --quick

lint: venv-dev  ## check format and style of Python and workflow files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/snakefmt --check .
	@$(BIN)/python tests/lint_workflow.py

format: venv-dev  ## format Python and workflow files
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/snakefmt .

lock: venv-dev  ## write requirements*.txt from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --output-file requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --group dev --constraints requirements.txt --output-file requirements-dev.txt

diagram: venv  ## draw the picture of the stages in README.md
	@$(BIN)/python scripts/diagram.py README.md

clean:  ## remove the caches and logs of the tools; nothing below results is touched
	@rm -rf .pytest_cache .ruff_cache .hypothesis .snakemake/log
	@find scripts tests -name __pycache__ -prune -exec rm -rf {} +
	@echo "Kept: results (data and trained runs), .snakemake (what made them) and $(VENV)."
	@echo "To remove those too:"
	@echo "    rm -r results/runs results/logs results/figures results/*.csv results/*.html    # the runs"
	@echo "    rm -r results/data                                    # the data"
	@echo "    rm -r .snakemake $(VENV)"

venv:  ## set up only
	@scripts/venv.sh $(VENV) requirements.txt

venv-dev:  ## set up with the test tools only
	@scripts/venv.sh $(VENV) requirements-dev.txt
