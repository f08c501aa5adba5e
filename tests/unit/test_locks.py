"""Who holds Snakemake's locks, and when they are removed."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lib.cluster import locks
from lib.cluster.snakemake_command import QUIETLY
from lib.core.errors import UserError
from lib.core.holder import Holder
from lib.core.layout import Layout

SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "1", *QUIETLY]
SNAKEFILE = """
rule report:
    output: "results/a/report.csv"
    shell: "touch {output}"
"""
NOBODY = {"process": 2**40}  # a number that no process has
OTHER = Layout(Path("results/b"))


def write_holder(files: Layout, **changes) -> None:
    """Write down who holds the locks of a study: this process, but for the changes."""
    locks.LOCKS.mkdir(parents=True, exist_ok=True)
    holder = replace(Holder.current(), **changes)
    locks._marker(files).write_text(json.dumps(asdict(holder)))


@pytest.fixture
def study(tmp_path, monkeypatch, programs) -> Layout:
    """A study that somebody has locked."""
    monkeypatch.chdir(tmp_path)
    programs(squeue="")
    Path("Snakefile").write_text(SNAKEFILE)
    locks.LOCKS.mkdir(parents=True)
    (locks.LOCKS / "0.output.lock").write_text("results/a/report.csv\n")
    return Layout(Path("results/a"))


def snakemake(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([*SNAKEMAKE, *options], check=False, capture_output=True, text=True)


def test_the_locks_of_a_dead_process_are_removed(study):
    write_holder(study, **NOBODY)
    line = locks.clear(study, "unlock")
    assert f"is dead (process {2**40} on " in line
    assert snakemake().returncode == 0


def test_who_runs_the_study_is_named(study):
    locks.mark(study)
    with pytest.raises(UserError, match=f"is being run by process {os.getpid()} on "):
        locks.clear(study, "unlock")
    assert snakemake().returncode == 1


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"namespace": "a container"}, None])
def test_where_it_cannot_be_known_the_command_is_named(study, changes):
    if changes is not None:
        write_holder(study, **changes | NOBODY)
    with pytest.raises(UserError, match=r"If that does not run any more, type this.*\n  unlock"):
        locks.clear(study, "unlock")
    assert (locks.LOCKS / "0.output.lock").exists()


@pytest.mark.parametrize(
    ("answer", "is_dead"),
    [
        ("", True),
        ("echo RUNNING", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_of_a_job_on_another_machine_slurm_knows(study, programs, answer, is_dead):
    programs(squeue=answer)
    write_holder(study, host="elsewhere", slurm_job="7")
    assert locks.is_dead(locks.holder(study)) == is_dead


def test_the_earlier_start_of_this_very_job_is_dead(study, monkeypatch):
    write_holder(study, host="elsewhere", slurm_job="7")
    monkeypatch.setenv(locks.DRIVER, "7")
    assert locks.is_dead(locks.holder(study))


def test_the_locks_of_another_study_that_is_being_run_stay(study):
    locks.mark(OTHER)
    assert locks.clear(study, "unlock") == ""  # if they have files in common, Snakemake says so
    write_holder(study, **NOBODY)
    with pytest.raises(UserError, match="unlock"):
        locks.clear(study, "unlock")
    assert (locks.LOCKS / "0.output.lock").exists()


@pytest.mark.parametrize("how", [("--unlock",), ()], ids=["by hand", "at its end"])
def test_who_unlocks_removes_what_was_noted(study, how):
    """Otherwise the locks of who runs the study next would be taken for a dead one's."""
    (locks.LOCKS / "0.output.lock").unlink()
    locks.mark(study)
    assert snakemake(*how).returncode == 0
    assert list(locks.LOCKS.glob("*")) == []
    locks.mark(study)  # the folder is gone
    assert list(locks.LOCKS.glob("*")) == []


def test_without_locks_there_is_nothing_to_do(study):
    (locks.LOCKS / "0.output.lock").unlink()
    locks.mark(study)
    assert locks.clear(study, "unlock") == ""
