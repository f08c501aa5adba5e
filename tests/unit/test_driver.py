"""What the driver asks Slurm for, and when it takes Snakemake's locks for a killed driver's."""

import subprocess
import sys
from pathlib import Path

import pytest

from lib.cluster import driver
from lib.cluster.profile import Profile
from lib.cluster.snakemake_command import QUIETLY
from lib.core.layout import Layout

NAMED = "slurm-partition-config: partitions.yaml\n"
PARTITIONS = """
partitions:
  short: {max_runtime: 60}
  long: {max_runtime: 1000}
  gpu: {max_runtime: 5000, max_gpu: 2}
"""


def options(folder, profile: str, minutes: int = 1440) -> list[str]:
    (folder / "config.yaml").write_text(profile)
    (folder / "partitions.yaml").write_text(PARTITIONS)
    asked = driver.request(Profile.read(folder), minutes)
    assert "--ntasks=1" in asked
    return [option for option in asked if option not in ("--ntasks=1", "--cpus-per-task=1")]


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("executor: slurm", ["--time=1440", "--mem=1024"]),
        (NAMED, ["--time=1000", "--mem=1024", "--partition=long"]),
        (
            NAMED + "default-resources: {slurm_partition: \"'short'\", slurm_account: ours}",
            ["--time=60", "--mem=1024", "--partition=short", "--account=ours"],
        ),
        (
            "slurm-qos: normal\nslurm-reservation: lesson\n"
            "default-resources: {mem_mb: 0, constraint: cpu, slurm_extra: \"'--nice=5 -x n1'\"}",
            "--time=1440 --qos=normal --reservation=lesson --constraint=cpu --nice=5 -x n1".split(),
        ),
    ],
)  # fmt: skip
def test_it_asks_for_what_the_profile_names_for_all_jobs(tmp_path, profile, expected):
    assert options(tmp_path, profile) == expected


def test_no_more_time_than_was_asked_for(tmp_path):
    assert options(tmp_path, NAMED, 30)[0] == "--time=30"


def test_its_own_job_does_not_show_in_what_it_submits():
    variables = {"SLURM_CONF": "/x", "SBATCH_ACCOUNT": "ours", "PATH": "/bin"}
    assert driver.environment({**variables, "SLURM_JOB_ID": "7"}) == variables


def test_what_it_is_doing(programs):
    files = Layout(Path("results"))
    programs(squeue="echo 'warning: slow'; echo '7|RUNNING on n1, elapsed 0:05 of 2:00'")
    assert driver.find(files) == ("7", "RUNNING on n1, elapsed 0:05 of 2:00")
    programs(squeue="echo '8|PENDING on , elapsed 0:00 of 2:00'")
    assert driver.find(files) == ("8", "PENDING, elapsed 0:00 of 2:00")
    programs(squeue="")
    assert driver.find(files) == ("", "")


SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "1", *QUIETLY]
SNAKEFILE = """
rule report:
    output: "results/a/report.csv"
    shell: "touch {output}"
"""


@pytest.fixture
def study(tmp_path, monkeypatch, programs) -> Layout:
    """A study that somebody has locked."""
    monkeypatch.chdir(tmp_path)
    programs(squeue="", scancel="")
    Path("Snakefile").write_text(SNAKEFILE)
    driver.LOCKS.mkdir(parents=True)
    (driver.LOCKS / "0.output.lock").write_text("results/a/report.csv\n")
    return Layout(Path("results/a"))


def snakemake(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([*SNAKEMAKE, *options], check=False, capture_output=True, text=True)


def locked() -> list[str]:
    return sorted(path.name for path in driver.LOCKS.glob("*"))


def test_the_locks_of_a_killed_driver_are_removed_and_its_jobs_canceled(study, monkeypatch, capfd):
    canceled = []
    monkeypatch.setattr(driver, "cancel_jobs", canceled.append)
    monkeypatch.setenv(driver.JOB, "7")
    driver.mark_locks(study)
    assert locked() == ["0.output.lock", driver.job_name(study)]
    driver.clear_after_killed_driver(study, SNAKEMAKE)
    assert not locked()
    assert canceled == [study]
    assert "The driver 7 was killed" in capfd.readouterr().out


def test_the_locks_of_anybody_else_stay(study, capfd):
    driver.mark_locks(study)  # the variable of a driver is not set
    driver.clear_after_killed_driver(study, SNAKEMAKE)
    assert locked() == ["0.output.lock"]
    assert not capfd.readouterr().out
    refused = snakemake()
    assert refused.returncode == 1
    assert "--unlock" in refused.stderr
    assert locked() == ["0.output.lock"]


def test_the_driver_of_another_study_was_killed(study, monkeypatch):
    monkeypatch.setenv(driver.JOB, "7")
    driver.mark_locks(Layout(Path("results/b")))
    driver.clear_after_killed_driver(study, SNAKEMAKE)
    assert "0.output.lock" in locked()


@pytest.mark.parametrize("how", [("--unlock",), ()], ids=["by hand", "at its end"])
def test_who_unlocks_removes_the_marker_too(study, monkeypatch, how):
    """Otherwise the locks of who runs the study next would be taken for a killed driver's."""
    monkeypatch.setenv(driver.JOB, "7")
    (driver.LOCKS / "0.output.lock").unlink()
    driver.mark_locks(study)
    assert snakemake(*how).returncode == 0
    assert not locked()
    driver.mark_locks(study)  # the folder is gone
    assert not locked()
