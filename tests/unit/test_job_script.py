"""The job script that make sbatch prints: its options of sbatch, its commands."""

import shlex

import pytest
from conftest import SMALL_CONFIG

import job_script
from lib.cluster import sbatch
from lib.core.errors import UserError
from lib.study.config import read_study

LINE = (
    "sbatch --parsable --job-name a-run --output /dev/null --export=ALL --comment 'rule train' "
    "-A ours  -p 'cpu' -t 15 -C 'a|b' --mem 3072 --requeue --ntasks=1 --cpus-per-task=2 "
    "--mail-user=$WHO -x n1 -D '/my work/it'\"'\"'s' --gpus=1"
)
JOB = {"sbatch": LINE, "threads": 2}


@pytest.fixture
def study(finished_once, monkeypatch):
    """A study that is finished, in its folder."""
    monkeypatch.chdir(finished_once.folder)
    return read_study([SMALL_CONFIG], {})


def commands(script: str) -> dict[str, list[str]]:
    """Return the words of the Python commands, by the script that they run."""
    lines = script.replace("\\\n", "").splitlines()
    words = (shlex.split(line)[1:] for line in lines if line.startswith("python "))
    return {first: rest for first, *rest in words}


def test_the_options_are_those_that_sbatch_would_get(monkeypatch):
    monkeypatch.setenv("WHO", "me@example.org")
    options = dict(sbatch.options(LINE))
    assert options.pop("-x") == "n1"
    assert options.pop("--requeue") is None
    assert options["--mail-user"] == "me@example.org"
    assert options["--chdir"] == "/my work/it's"
    assert all(name.startswith("--") for name in options)


def test_an_option_with_an_empty_value():
    assert sbatch.options("sbatch -C '' --qos=") == [("--constraint", ""), ("--qos", "")]


def test_each_option_of_a_job_is_a_line_that_says_what_it_is(study, monkeypatch):
    monkeypatch.setenv("WHO", "me@example.org")
    script = job_script.script(study, "cnn", 1, JOB, [])
    assert script.startswith("#!/bin/bash\n")
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    words = [shlex.split(line, comments=True) for line in (each[1:] for each in lines)]
    assert [" ".join(options) for _, *options in words] == [
        "--job-name=cnn-seed1",
        "--output=results/small/cnn-seed1-%j.out",
        "--account=ours",
        "--partition=cpu",
        "--time=15",
        "--constraint=a|b",
        "--mem=3072",
        "--requeue",
        "--ntasks=1",
        "--cpus-per-task=2",
        "--mail-user=me@example.org",
        "-x n1",
        "--chdir=/my work/it's",
        "--gpus=1",
    ]
    assert all("  # " in line for line in lines)
    assert "--time=15                           # time limit in minutes" in lines[4]


def test_the_training_is_that_of_the_workflow(study, finished_once):
    """Apart from the folder, the command is the one that the run's record has."""
    ours = commands(job_script.script(study, "cnn", 1, {**JOB, "threads": 1}, []))
    script, *theirs = finished_once.record("cnn")["command"]
    by_hand = "results/small/by-hand/cnn/seed1"
    assert by_hand in ours["scripts/train.py"]
    workflow = [by_hand if word == "results/small/runs/cnn/seed1" else word for word in theirs]
    assert ours["scripts/train.py"] == workflow
    assert script.endswith("scripts/train.py")
    data = "results/small/data/MNIST-small.safetensors"
    evaluate = ["--run", by_hand, "--data", data, "--threads", "1"]
    assert ours["scripts/evaluate.py"] == evaluate


def test_the_threads_are_those_of_the_job(study):
    ours = commands(job_script.script(study, "cnn", 1, JOB, []))
    for words in ours.values():
        assert words[words.index("--threads") + 1] == "2"


def test_a_run_that_the_config_does_not_have(study):
    with pytest.raises(UserError, match="there is no run 'cnn/seed2'; there are: mlp/seed1, cnn/"):
        study.run_named("cnn/seed2")


def test_it_names_the_config_for_the_data(study):
    script = job_script.script(study, "cnn", 1, JOB, ["my config.yaml"])
    assert "snakemake --profile profiles/local --configfile 'my config.yaml' -- results" in script
