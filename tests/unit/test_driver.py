"""What the driver asks Slurm for, and what is done where one was killed."""

from pathlib import Path

import pytest
from test_locks import CONFIG, write_holder

from lib.cluster import driver
from lib.cluster.profile import Profile
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


@pytest.mark.parametrize("driven", [True, False])
def test_the_jobs_that_a_killed_driver_has_left_are_canceled(
    tmp_path, monkeypatch, programs, capfd, driven
):
    """But not those of a killed Snakemake that was no driver: they train on."""
    monkeypatch.chdir(tmp_path)
    programs(squeue="", scontrol=CONFIG)
    files, canceled = Layout(Path("results")), []
    monkeypatch.setattr(driver, "cancel_jobs", canceled.append)
    driver.log_folder(files).mkdir(parents=True)
    (driver.log_folder(files) / f"{7 if driven else 8}.log").touch()
    write_holder(files, host="elsewhere", slurm_job="7 of one")
    driver.clear_after_killed_driver(files)
    assert canceled == ([files] if driven else [])
    assert ("The driver 7 was killed" in capfd.readouterr().out) == driven
