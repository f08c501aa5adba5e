"""Many runs in one Slurm job: which ones, and what the job asks for."""

import json
import re
from collections import defaultdict
from types import SimpleNamespace

import pytest

from lib.cluster import packs, sbatch


class FakeJob(SimpleNamespace):
    """As much of a job of Snakemake's as is looked at."""

    __hash__ = object.__hash__


def train_job(number, **resources):
    resources = {"mem_mb": 1000, "runtime": 5, "gpu": 0} | resources
    return FakeJob(
        name="train",
        threads=resources.pop("threads", 1),
        resources=resources,
        wildcards=SimpleNamespace(experiment="mlp", seed=str(number)),
        output=[f"runs/mlp/seed{number}/run.json"],
        log=[f"logs/train-mlp-seed{number}.log"],
        shellcmd=f"python scripts/train.py --set seed={number}",
    )


def made(jobs, runs_per_job=10, cpus_per_job=None, growth=None, evaluated=()):
    study = SimpleNamespace(runs_per_job=runs_per_job, cpus_per_job=cpus_per_job)
    dag = SimpleNamespace(depending=defaultdict(list), needrun=lambda job: True)
    for job in evaluated:
        number = job.wildcards.seed
        evaluation = FakeJob(
            name="evaluate", shellcmd=f"python scripts/evaluate.py {number}",
            output=[f"runs/mlp/seed{number}/evaluation.json"], log=[f"logs/e{number}.log"],
        )  # fmt: skip
        dag.depending[job] = [FakeJob(name="report"), evaluation]
    return packs.make(study, jobs, growth or (lambda job: sbatch.Growth()), dag)


def test_packs_are_of_about_the_same_size():
    jobs = [train_job(number) for number in range(21)]
    found = made(jobs)
    assert [len(pack.jobs) for pack in found] == [7, 7, 7]
    assert [job for pack in found for job in pack.jobs] == jobs


@pytest.mark.parametrize("other", [{"threads": 2}, {"gpu": 1}, {"slurm_extra": "'--nice'"}])
def test_only_what_asks_for_the_same_is_together(other):
    found = made([train_job(1), train_job(2, **other), train_job(3, mem_mb=500, runtime=2)])
    assert [[job.wildcards.seed for job in pack.jobs] for pack in found] == [["1", "3"], ["2"]]


def test_what_was_killed_for_memory_asks_for_more_alone():
    first, second = train_job(1), train_job(2)
    growth = {first: sbatch.Growth(), second: sbatch.Growth(memory=2)}
    assert [pack.jobs for pack in made([first, second], growth=growth.get)] == [[first], [second]]


def test_one_after_the_other_takes_the_time_of_all_and_the_memory_of_one():
    jobs = [train_job(number, runtime=number, mem_mb=100 * number) for number in (1, 2, 3)]
    (pack,) = made(jobs)
    request = pack.request()
    assert pack.at_once == 1
    assert (request.threads, request.resources["runtime"], request.resources["mem_mb"]) == (
        1,
        6,
        300 + packs.FORK_SERVER_MB,
    )
    assert jobs[0].resources["runtime"] == 1  # that of the run is as it was


def test_some_at_once_take_less_time_and_more_memory():
    jobs = [train_job(number, threads=2, runtime=4) for number in range(10)]
    (pack,) = made(jobs, cpus_per_job=8)
    request = pack.request()
    assert pack.at_once == 4
    assert (request.threads, request.resources["runtime"], request.resources["mem_mb"]) == (
        8,
        9 + 4,
        4000 + packs.FORK_SERVER_MB,
    )


@pytest.mark.parametrize(
    ("asked", "for_pack"),
    [
        ("--signal=TERM@60 --open-mode=append", "--signal=B:TERM@60 --open-mode=append"),
        ("--mail-type=FAIL --signal TERM@60", "--mail-type=FAIL --signal B:TERM@60"),
        ("--signal=RB:USR1@30", "--signal=RB:USR1@30"),
    ],
)
def test_its_own_process_is_signaled(asked, for_pack):
    (pack,) = made([train_job(1, slurm_extra=asked)])
    assert pack.request().resources["slurm_extra"] == for_pack


def test_a_pack_of_few_runs_asks_for_no_more_cores_than_they_use():
    (pack,) = made([train_job(1)], cpus_per_job=8)
    assert pack.request().threads == 1


def test_the_script_has_the_commands_of_the_rules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [train_job(1), train_job(2)]
    (pack,) = made(jobs, evaluated=jobs[:1])
    script = pack.script()
    (lines,) = re.findall(r"<<'END OF RUNS'\n(.*)\nEND OF RUNS$", script, re.DOTALL)
    first, second = map(json.loads, lines.splitlines())
    assert (first["name"], second["name"]) == ("mlp/seed1", "mlp/seed2")
    assert [each.rpartition("; ")[2] for each in first["commands"]] == [
        "python scripts/train.py --set seed=1",
        "python scripts/evaluate.py 1",
    ]
    assert len(second["commands"]) == 1
    assert first["record"] == "runs/mlp/seed1/evaluation.json"
    assert second["record"] == "runs/mlp/seed2/run.json"
    assert (tmp_path / "runs/mlp/seed1").is_dir()
    assert (tmp_path / "logs").is_dir()
    assert "--share-gpu" not in script


def test_runs_with_a_gpu_share_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (pack,) = made([train_job(number, gpu=1) for number in range(4)], cpus_per_job=2)
    assert " scripts/pack.py --at-once 2 --share-gpu <<" in pack.script()
