"""What a Slurm job does: which runs, what it asks for, and its script, run here without srun."""

import json
import os
import re
import subprocess
import threading
from types import SimpleNamespace

import pytest
from conftest import PATIENCE, ROOT
from snakemake.iocontainers import Wildcards

from lib.cluster import sbatch, slurm_job
from lib.cluster.job_end import Cause, JobReport


class FakeJob(SimpleNamespace):
    """As much of a job of Snakemake's as is looked at."""

    __hash__ = object.__hash__
    is_shell, is_shadow, benchmark, needs_singularity, env_modules, conda_env = True, *[None] * 5

    def is_group(self):
        return False

    def get_wait_for_files(self):
        return self.inputs


def train_job(number, **resources):
    resources = {"mem_mb": 1000, "runtime": 5, "gpu": 0} | resources
    return FakeJob(
        name="train",
        threads=resources.pop("threads", 1),
        resources=sbatch.Resources(resources),
        inputs=[],
        wildcards=Wildcards(fromdict={"experiment": "mlp", "seed": str(number)}),
        output=[f"runs/mlp/seed{number}/run.json"],
        log=[f"logs/train-mlp-seed{number}.log"],
        shellcmd=f"python scripts/train.py --set seed={number}",
    )


def made(jobs, runs_per_job=10, cpus_per_job=None, growth=None, evaluated=(), needed=()):
    study = SimpleNamespace(runs_per_job=runs_per_job, cpus_per_job=cpus_per_job, stage=False)
    evaluations = {}
    for job in evaluated:
        number = job.wildcards.seed
        evaluations[f"mlp/seed{number}"] = FakeJob(
            name="evaluate", shellcmd=f"python scripts/evaluate.py {number}", resources={},
            input=[*job.output, *needed],
            output=[f"runs/mlp/seed{number}/evaluation.json"], log=[f"logs/e{number}.log"],
        )  # fmt: skip
    return slurm_job.slurm_jobs(study, jobs, growth or (lambda job: sbatch.Growth()), evaluations)


def script_of(made, folder, minutes=None, latency_wait=5):
    """Return the script of a Slurm job."""
    settings = SimpleNamespace(latency_wait=latency_wait)
    workflow = SimpleNamespace(execution_settings=settings)
    executor = SimpleNamespace(workflow=workflow, format_job_exec=lambda job: "snakemake it")
    return made.script(str(folder), folder / "logs/slurm", minutes, executor)


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
        300 + slurm_job.FORK_SERVER_MB,
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
        4000 + slurm_job.FORK_SERVER_MB,
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
    (pack,) = made([train_job(number, slurm_extra=asked) for number in (1, 2)])
    assert pack.request().resources["slurm_extra"] == for_pack


def test_a_job_of_one_run_asks_for_what_the_run_asks_for():
    """Slurm signals its step, not the batch script."""
    (one,) = made([train_job(1, slurm_extra="--signal=TERM@60")], cpus_per_job=8)
    request = one.request()
    assert request.threads == 1
    assert request.resources == {
        "mem_mb": 1000, "runtime": 5, "gpu": 0, "slurm_extra": "--signal=TERM@60",
    }  # fmt: skip


def test_a_pack_of_few_runs_asks_for_no_more_cores_than_they_use():
    (pack,) = made([train_job(1), train_job(2)], cpus_per_job=8)
    assert pack.request().threads == 2


def runs_in(script):
    (lines,) = re.findall(r"<<'END OF RUNS'\n(.*)\nEND OF RUNS$", script, re.DOTALL)
    return [json.loads(line) for line in lines.splitlines()]


def test_the_script_has_the_commands_of_the_rules(tmp_path):
    jobs = [train_job(1), train_job(2)]
    (pack,) = made(jobs, evaluated=jobs[:1])
    script = script_of(pack, tmp_path)
    first, second = runs_in(script)
    assert (first["name"], second["name"]) == ("mlp/seed1", "mlp/seed2")
    assert [each["command"].rpartition("; ")[2] for each in first["stages"]] == [
        "python scripts/train.py --set seed=1",
        "python scripts/evaluate.py 1",
    ]
    assert [stage["name"] for stage in second["stages"]] == ["train"]
    assert first["stages"][1]["outputs"] == ["runs/mlp/seed1/evaluation.json"]
    assert "--share-gpu" not in script
    assert "srun" not in script


def test_an_evaluation_that_needs_more_than_the_training_waits_for_it(tmp_path):
    job, other = train_job(1), tmp_path / "of a rule of the user's"
    assert made([job], evaluated=[job], needed=[other])[0].evaluations == {}
    other.touch()
    assert len(made([job], evaluated=[job], needed=[other])[0].evaluations) == 1


def test_each_job_of_a_pack_has_a_name_of_its_own():
    names = []
    for level in "39":
        job = train_job(1)
        job.wildcards = Wildcards(fromdict={"experiment": "mlp", "seed": "1", "level": level})
        names.append(slurm_job.name_of(job))
    assert len(set(names)) == 2
    assert slurm_job.name_of(train_job(1)) == "mlp/seed1"


def test_runs_with_a_gpu_share_it(tmp_path):
    (pack,) = made([train_job(number, gpu=1) for number in range(4)], cpus_per_job=2)
    assert " --at-once 2 --share-gpu <<" in script_of(pack, tmp_path)


def test_one_run_is_a_step_of_its_job(tmp_path):
    (one,) = made([train_job(1)])
    assert " '--launch=srun -n1 --cpu-bind=q " in script_of(one, tmp_path)


def test_what_needs_snakemake_on_the_node_is_left_to_it(tmp_path):
    """Its own exit status says nothing of the job's."""
    job = train_job(1)
    job.conda_env = "an environment"
    script = script_of(made([job])[0], tmp_path)
    assert "--launch" not in script
    assert runs_in(script)[0]["stages"][0]["command"] == "snakemake it || exit 2"


# --- the script, run here without srun

NODE = {
    "SLURM_JOB_ID": "7",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SLURM_MEM_PER_NODE": "100",
    "SLURM_RESTART_COUNT": "2",
    "SBATCH_QOS": "normal",
    "SRUN_DEBUG": "3",
    "OMP_NUM_THREADS": "64",
}


@pytest.fixture
def folder(tmp_path):
    """A folder with the scripts, in which Slurm starts jobs."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    (tmp_path / "logs/slurm").mkdir(parents=True)
    (tmp_path / "in put").touch()
    return tmp_path


def run(folder, command, job=None, script=lambda text: text, latency_wait=5, **more):
    """Run the script of a job with one run, as Slurm would; return how it ends, and its report."""
    job = job or train_job(1)
    job.shellcmd, job.inputs = command, ["in put"]
    text = script_of(made([job])[0], folder, latency_wait=latency_wait)
    text = re.sub("--launch=srun [^']*", "--launch=env LAUNCHED=yes", text)
    done = subprocess.run(
        ["sh"], cwd=folder, env=os.environ | NODE, input=script(text),
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return done, JobReport.read(folder / "logs/slurm/7.json")


def test_it_makes_room_and_runs_the_commands(folder):
    log = folder / "logs/train-mlp-seed1.log"
    log.write_text("of an earlier start")
    done, report = run(
        folder, f'[ ! -e {log} ] && echo "it\'s done" > runs/mlp/seed1/run.json; exit 3'
    )
    assert done.returncode == 3
    assert done.stdout.startswith("[1 of 1] mlp/seed1: exit status 3: logs/train-mlp-seed1.log\n")
    assert (folder / "runs/mlp/seed1/run.json").read_text() == "it's done\n"
    assert (report.job_id, report.attempt) == ("7", 2)
    assert report.status("mlp/seed1", "train") == 3
    assert report.ended


def test_the_commands_see_which_job_it_is_and_no_options_of_srun(folder):
    run(folder, f"env > {folder}/seen", job=train_job(1, threads=2))
    seen = set((folder / "seen").read_text().splitlines())
    known = {"SLURM_JOB_ID=7", "SLURM_CONF=/etc/slurm/slurm.conf", "OMP_NUM_THREADS=2"}
    assert {*known, "LAUNCHED=yes"} <= seen
    assert not [line for line in seen if line.startswith(("SLURM_MEM", "SBATCH_", "SRUN_"))]


def test_a_file_may_appear_late(folder):
    (folder / "in put").unlink()
    threading.Timer(0.5, (folder / "in put").touch).start()
    assert run(folder, "true", latency_wait=PATIENCE)[0].returncode == 0


def test_a_file_that_does_not_appear_is_named(folder):
    (folder / "in put").unlink()
    done, report = run(folder, "true", latency_wait=1)
    said = "in put is not there after 1 s (latency-wait in the profile)"
    assert said in done.stderr
    assert said in (folder / "logs/train-mlp-seed1.log").read_text()
    assert report.cause("mlp/seed1", "train") is Cause.NODE


@pytest.mark.parametrize(("begun", "cause"), [(True, Cause.DETERMINISTIC), (False, Cause.UNKNOWN)])
def test_a_failure_before_the_commands_of_the_rule_may_pass(folder, begun, cause):
    """As of srun where slurmctld does not answer, or of a file system."""
    log = "touch logs/train-mlp-seed1.log; " if begun else ""
    _, report = run(folder, f"{log}exit 1")
    assert report.cause("mlp/seed1", "train") is cause


def test_a_file_system_that_fails_for_one_run_stops_no_other(folder):
    jobs = [train_job(number) for number in (1, 2, 3)]
    for job in jobs:
        job.shellcmd = "true"
    (folder / "runs").mkdir()
    (folder / "runs/mlp").mkdir()
    (folder / "runs/mlp/seed1").write_text("a file where the folder should be")
    done = subprocess.run(
        ["sh"], cwd=folder, env=os.environ | NODE, input=script_of(made(jobs)[0], folder),
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 75
    assert "2 of 3 runs are done" in done.stdout
    assert "seed1" in done.stderr


def test_of_what_had_not_begun_when_the_job_was_asked_to_end_nothing_is_reported(folder):
    """The executor then does not count it as a retry of that run."""
    jobs = [train_job(number) for number in (1, 2)]
    for job in jobs:
        job.shellcmd = "kill -TERM $PPID; sleep 60"
    script = script_of(made(jobs, cpus_per_job=1)[0], folder)
    done = subprocess.run(
        ["sh"], cwd=folder, env=os.environ | NODE, input=script,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 143
    report = JobReport.read(folder / "logs/slurm/7.json")
    assert report.runs.keys() == {"mlp/seed1"}
    assert report.status("mlp/seed1", "train") == 143


@pytest.mark.parametrize("missing", ["python", "folder"])
def test_a_node_without_the_environment_or_the_project_is_named(folder, missing):
    here = str(folder) if missing == "folder" else slurm_job.sys.executable
    there = f"{folder}/not here"
    done, report = run(folder, "true", script=lambda text: text.replace(here, f"'{there}'", 1))
    assert done.returncode not in (0, 1)
    assert there in done.stderr
    assert report is None
