"""Who holds Snakemake's locks, and when they are removed."""

import json
import os
import subprocess
import sys
import threading
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
CONFIG = "echo 'ClusterName             = one'"
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
    programs(squeue="", scontrol=CONFIG)
    Path("Snakefile").write_text(SNAKEFILE)
    locks.LOCKS.mkdir(parents=True)
    (locks.LOCKS / "0.output.lock").write_text("results/a/report.csv\n")
    return Layout(Path("results/a"))


@pytest.fixture(autouse=True)
def no_time_is_spent(monkeypatch):
    monkeypatch.setattr(locks, "MOMENT", 0.2)


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
    programs(squeue=answer, scontrol=CONFIG)
    write_holder(study, host="elsewhere", slurm_job="7 of one")
    assert locks.is_dead(locks.holder(study)) == is_dead


@pytest.mark.parametrize("changes", [{"slurm_job": "7 of two"}, {"user": 12345}])
def test_of_another_cluster_or_user_slurm_may_know_nothing(study, changes):
    write_holder(study, **{"host": "elsewhere", "slurm_job": "7 of one"} | changes)
    assert not locks.is_dead(locks.holder(study))


def test_the_earlier_start_of_this_very_job_is_dead(study, monkeypatch):
    write_holder(study, host="elsewhere", slurm_job="7 of one")
    monkeypatch.setenv(locks.DRIVER, "7")
    assert locks.is_dead(locks.holder(study))


def test_the_locks_of_another_study_that_is_being_run_stay(study):
    locks.mark(OTHER)
    assert locks.clear(study, "unlock") == ""  # if they have files in common, Snakemake says so
    write_holder(study, **NOBODY)
    with pytest.raises(UserError, match=f"once the other studies .* have ended: .*{os.getpid()}"):
        locks.clear(study, "unlock")
    assert (locks.LOCKS / "0.output.lock").exists()


def test_who_has_just_locked_its_files_is_waited_for(study, monkeypatch):
    monkeypatch.setattr(locks, "MOMENT", 60)
    threading.Timer(0.3, locks.mark, [study]).start()
    with pytest.raises(UserError, match="is being run by"):
        locks.clear(study, "unlock")


def test_a_process_that_the_system_hides_lives(study, monkeypatch):
    """As where /proc is mounted with hidepid, of another user."""

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    write_holder(study, process=2**22 - 1)
    assert not locks.holder(study).has_ended()


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
