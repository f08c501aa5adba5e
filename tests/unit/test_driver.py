"""What the driver asks Slurm for, and which of Snakemake's locks it takes for its own."""

from pathlib import Path

import pytest

from lib.cluster import driver
from lib.core.files import write_json
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
    asked = driver.request(folder, minutes)
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


@pytest.fixture
def study(tmp_path, monkeypatch, programs) -> Layout:
    """A study whose driver was killed: one lock is the driver's, one is another study's."""
    monkeypatch.chdir(tmp_path)
    programs(squeue="", scancel="")
    files = Layout(Path("results/a"))
    driver.LOCKS.mkdir(parents=True)
    (driver.LOCKS / "0.output.lock").write_text("results/a/report.csv\n")
    (driver.LOCKS / "1.output.lock").write_text("results/ab/report.csv\n")
    driver.log_folder(files).mkdir(parents=True)
    return files


def test_the_locks_of_a_killed_driver_are_removed_and_no_others(study, capsys):
    own = driver.locks_of(study)
    assert list(own) == ["0.output.lock"]
    write_json(driver.marker_of(study), {"job": "7", "locks": own})
    driver.clear_after_dead_driver(study)
    assert [path.name for path in driver.LOCKS.iterdir()] == ["1.output.lock"]
    assert not driver.marker_of(study).exists()
    assert "The driver 7 was killed" in capsys.readouterr().out


def test_a_lock_that_somebody_has_made_since_stays(study):
    write_json(driver.marker_of(study), {"job": "7", "locks": {"0.output.lock": 1}})
    driver.clear_after_dead_driver(study)
    assert len(list(driver.LOCKS.iterdir())) == 2


def test_without_a_driver_before_nothing_is_touched(study):
    driver.clear_after_dead_driver(study)
    assert len(list(driver.LOCKS.iterdir())) == 2
