# make help lists what one can do.
.DEFAULT_GOAL := help
.PHONY: help run test lint format lock clean venv venv-dev
SHELL := /bin/bash -o pipefail

# The virtual environment; one that exists elsewhere can be named: make run VENV=~/envs/slurm
VENV ?= .venv
BIN := $(abspath $(VENV))/bin

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: venv  ## set up, train the lesson's MLP and CNN on this machine, write results/report.csv
	@$(BIN)/snakemake --profile profiles/local

test: venv-dev  ## set up with the test tools, run the whole test suite
	@$(BIN)/python -m pytest

lint: venv-dev  ## check format and style of Python and workflow files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/snakefmt --check .
	@$(BIN)/python tests/lint_workflow.py

format: venv-dev  ## format Python and workflow files
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/snakefmt .

lock: venv-dev  ## write requirements*.txt anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --output-file requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --group dev --constraints requirements.txt --output-file requirements-dev.txt

clean:  ## remove caches and logs of the tools; keep data and trained runs
	@rm -rf .pytest_cache .ruff_cache .hypothesis .snakemake/log results/small
	@find scripts tests -name __pycache__ -prune -exec rm -rf {} +
	@echo "Kept: results (data and trained runs), .snakemake (what made them) and $(VENV)."
	@echo "To remove those too:"
	@echo "    rm -r results/runs results/logs results/report.csv    # the trained runs"
	@echo "    rm -r results/data                                    # the data"
	@echo "    rm -r .snakemake $(VENV)"

venv:
	@scripts/venv.sh $(VENV) requirements.txt

venv-dev:
	@scripts/venv.sh $(VENV) requirements-dev.txt
