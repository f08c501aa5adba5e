# make help lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run profile submit cancel watch check sbatch status why reproduce adopt predict cluster cluster-down test test-all test-slurm test-lowest test-newest test-gpu fuzz bench bench-quick error-rates diagram lint format lock clean venv venv-dev
SHELL := /bin/bash -o pipefail

# A value as one word of the shell: it may have spaces and quotes, and begin with ~/.
quoted = $(subst '~/,~/','$(subst ','\'',$(1))')

# The virtual environment; one that exists elsewhere can be named: make run VENV=~/envs/slurm
# What is in it is called by its Python: the first line of a script in it cannot hold a space.
VENV ?= .venv
PY := $(call quoted,$(VENV)/bin/python)

# Set the shell's arguments to the one file that a variable names, or else to the words in it.
files = value=$(call quoted,$(1)); [ -e "$$value" ] || set -- $$value; \
    [ -z "$$value" ] || [ -e "$$1" ] || set -- "$$value";

# A command about one study: make status CONFIGFILE=config/mine.yaml
study = $(call files,$(CONFIGFILE)) $(PY) scripts/$(1).py --configfile "$$@"

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: venv  ## set up, train the lesson's MLP and CNN on this machine, write results/report.html
	@$(PY) scripts/watch.py -- $(PY) -P -m snakemake --profile profiles/local

watch: venv  ## show the progress of the runs while they train, here or on Slurm
	@$(call study,watch)

check: venv  ## try the models of config/, ask Slurm whether it would take the jobs
	@$(call study,check)

sbatch:  ## print the job script of one run, to submit by hand: make sbatch RUN=cnn/seed1 > cnn.sh
	@scripts/venv.sh $(call quoted,$(VENV)) requirements.txt >&2
	@$(call study,job_script) --profile $(call quoted,$(or $(PROFILE),profiles/slurm)) \
	    --run $(call quoted,$(or $(RUN),$(error name a run: make sbatch RUN=cnn/seed1)))

profile: venv  ## write the profile for this cluster, check it: make profile ACCOUNT=myproject
	@$(call study,make_profile) --write $(if $(ACCOUNT),--account $(call quoted,$(ACCOUNT))) \
	    $(if $(PROFILE),--output $(call quoted,$(PROFILE)))

submit: venv  ## run on Slurm, Snakemake too: make submit PROFILE=profiles/slurm
	@$(call study,submit) --profile $(call quoted,$(or $(PROFILE),profiles/slurm))

cancel: venv  ## end what make submit has started, and cancel the study's jobs
	@$(call study,cancel)

status: venv  ## show the runs by experiment and seed: Slurm state, epoch, accuracy
	@$(call study,status)

why: venv  ## explain one run: make why RUN=cnn/seed1
	@$(call study,status) --why $(call quoted,$(or $(RUN),$(error name a run: make why RUN=cnn/seed1)))

adopt: venv  ## keep results of earlier code that computes the same: make adopt, or FORCE="reason"
	@$(call study,adopt) --profile $(call quoted,$(or $(PROFILE),profiles/local)) \
	    $(if $(FORCE),--force $(call quoted,$(FORCE))) $(if $(filter all,$(STEPS)),--whole)

reproduce: venv  ## repeat runs from their records: make reproduce RUN=cnn/seed1, or RUN=all
	@$(call study,reproduce) --run $(call quoted,$(or $(RUN),$(error name a run: make reproduce RUN=cnn/seed1))) \
	    $(if $(SAMPLE),--sample $(call quoted,$(SAMPLE))) $(if $(EXACT),--exact) \
	    --profile $(call quoted,$(or $(PROFILE),profiles/local))

predict: venv  ## classify images: make predict IMAGES=new/ MODEL=results/runs/cnn/seed1 CSV=new.csv
	@$(call files,$(or $(IMAGES),$(IMAGE),$(error name files or a folder: make predict IMAGES=new/))) \
	    $(PY) scripts/predict.py --model $(call quoted,$(or $(MODEL),results/runs/cnn/seed1)) \
	    $(if $(CSV),--csv $(call quoted,$(CSV))) -- "$$@"

cluster:  ## start a throw-away Slurm on this machine (root, Debian or Ubuntu)
	@tests/cluster/slurm.py up

cluster-down:  ## stop it and remove its files
	@tests/cluster/slurm.py down

test: venv-dev  ## set up with the test tools, run the tests (as root: on a throw-away Slurm too)
	@$(PY) -m pytest -m "not extended"

test-all: venv-dev  ## these, and what takes long: fault injection, other sites, fuzzing (under an hour)
	@$(PY) -m pytest

test-slurm: $(if $(RELEASE),,venv-dev)  ## run the Slurm tests; on another Debian: make test-slurm RELEASE=trixie
	@$(if $(RELEASE),tests/cluster/debian.py $(if $(KEEP),--keep $(call quoted,$(KEEP))) \
	    $(call quoted,$(RELEASE)),$(PY) -m pytest tests/slurm)

test-lowest: venv-dev  ## run the unit tests with the lowest versions that pyproject.toml allows
	@$(PY) tests/versions.py lowest

test-newest: venv-dev  ## run the unit tests with the newest versions that the package index has
	@$(PY) tests/versions.py newest

test-gpu: venv-dev  ## set up with the test tools, run the tests that need an NVIDIA GPU
	@$(PY) -m pytest --numprocesses 0 tests/gpu

fuzz: venv-dev  ## look for inputs that are not handled: make fuzz MINUTES=30 (for each search)
	@FUZZ_MINUTES=$(call quoted,$(or $(MINUTES),30)) $(PY) -m pytest --numprocesses 2 tests/fuzz

bench: venv-dev  ## measure against the lesson's plain script (under an hour), or a part: make bench PARTS=gpu
	@$(PY) tests/bench/bench.py $(if $(PARTS),--parts $(PARTS))

error-rates: venv-dev  ## how often the verdict is wrong, by simulation: docs/statistics.md (half an hour)
	@$(PY) tests/error_rates.py

bench-quick: venv-dev  ## measure only the quick parts (some minutes)
	@$(PY) tests/bench/bench.py --quick

lint: venv-dev  ## check format and style of Python and workflow files
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m snakefmt --check .
	@$(PY) tests/lint_workflow.py

format: venv-dev  ## format Python and workflow files
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .
	@$(PY) -m snakefmt .

lock: venv-dev  ## write requirements*.txt and constraints.txt from pyproject.toml
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --output-file requirements.txt
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    pyproject.toml --group dev --constraints requirements.txt --output-file requirements-dev.txt
	@echo "# No version newer than in requirements-dev.txt (make lock)." >constraints.txt
	@sed -nE 's/^([a-z0-9.-]+)(\[.*\])?==([^ ]+)( ;[^\]*[^ \])?.*/\1<=\3\4/p' \
	    requirements-dev.txt >>constraints.txt

diagram: venv  ## draw the picture of the stages in README.md
	@$(PY) scripts/diagram.py README.md

clean:  ## remove the caches and logs of the tools; nothing below results is touched
	@rm -rf .pytest_cache .ruff_cache .hypothesis .snakemake/log
	@find scripts tests -name __pycache__ -prune -exec rm -rf {} +
	@echo "Kept: results (data and trained runs), .snakemake (what made them), and the environment."
	@echo "To remove those too:"
	@echo "    rm -r results/runs results/logs results/figures results/*.csv results/*.html    # the runs"
	@echo "    rm -r results/data                                    # the data"
	@echo "    rm -r .snakemake "$(call quoted,$(call quoted,$(VENV)))

venv:  ## set up only
	@scripts/venv.sh $(call quoted,$(VENV)) requirements.txt

venv-dev:  ## set up with the test tools only
	@scripts/venv.sh $(call quoted,$(VENV)) requirements-dev.txt
