"""A trained network is never deleted or retrained without need."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import BIN, PATIENCE, SMALL_STUDY, cases, fresh_project, untouched

from lib.core.layout import RunFiles

MLP = {"train mlp 1", "evaluate mlp 1"}
CNN = {"train cnn 1", "evaluate cnn 1"}
LONG = "experiments: {mlp: {model: {name: MLP}, epochs: 5000}}"
OUTPUTS = ("model.safetensors", "history.csv", "run.json")


def contents(folder):
    """Return the bytes of what a training has written."""
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def damage(path):
    """Truncate a file, later than it was written."""
    path.write_bytes(path.read_bytes()[:-100])
    os.utime(path, (time.time(), time.time() + 2))


def test_a_killed_snakemake_does_not_keep_others_out(tmp_path):
    """One that lives does, and is named. Nothing is trained twice at once."""
    project = fresh_project(tmp_path / "project", data=True)
    (project.folder / "long.yaml").write_text(f"{SMALL_STUDY}{LONG}")
    command = [BIN / "snakemake", "--profile", "profiles/local", "--configfile", "long.yaml"]
    first = subprocess.Popen(command, cwd=project.folder, start_new_session=True)
    checkpoint = RunFiles(project.run_folder("mlp")).checkpoint
    deadline = time.monotonic() + PATIENCE
    while not checkpoint.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    refused = project.run(*command, check=False)
    assert refused.returncode == 1
    assert f"error: this study is being run by process {first.pid} on " in refused.stdout
    assert "Traceback" not in refused.stdout
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    project.edit("long.yaml", "epochs: 5000", "epochs: 1")
    planned = project.run(*command, "-n").stdout
    assert "is dead" not in planned  # a dry run changes nothing
    done = project.run(*command).stdout
    assert f"is dead (process {first.pid} on " in done
    assert project.record("mlp")["settings"]["epochs"] == 1


def test_a_failed_training_leaves_the_run_before_it(finished):
    """Snakemake removes the outputs of a job before it starts, and after it failed."""
    before = contents(finished.run_folder("mlp"))
    model = finished.folder / "scripts/models/mlp.py"
    good = model.read_text()
    model.write_text(good.replace("self.fc2(x)", "self.fc3(x)"))
    assert finished.planned() == MLP | {"report"}
    done = finished.snakemake(check=False)
    assert done.returncode != 0
    assert "Cannot restore" not in done.stdout
    assert contents(finished.run_folder("mlp")) == before
    assert "train mlp 1" in finished.planned()  # it is not the run of the code as it is now
    model.write_text(good)
    finished.snakemake()
    assert contents(finished.run_folder("mlp")) == before
    assert finished.planned() == set()


@pytest.mark.extended
def test_a_failed_first_training_says_nothing_of_files_to_restore(project, with_data):
    project.edit("scripts/models/mlp.py", "self.fc2(x)", "self.fc3(x)")
    done = project.snakemake(check=False)
    assert done.returncode != 0
    assert "restore" not in done.stdout.lower()


@pytest.mark.extended
def test_data_that_is_made_again_hides_no_other_reason(finished):
    damage(finished.data)
    assert finished.planned("--config", "seeds=[1,2]") == {
        "prepare", "train mlp 2", "train cnn 2", "evaluate mlp 2", "evaluate cnn 2", "report",
    }  # fmt: skip


def test_truncated_prepared_data_is_made_again(finished):
    before, runs = finished.data.read_bytes(), untouched(finished.results / "runs")
    damage(finished.data)
    assert finished.planned() == {"prepare", "report"}
    done = finished.snakemake()
    assert f"{finished.data.relative_to(finished.folder)} is truncated or corrupt" in done.stdout
    assert finished.data.read_bytes() == before
    assert untouched(finished.results / "runs") == runs
    assert finished.planned() == set()


@pytest.mark.extended
@pytest.mark.parametrize("damaged", ["missing", "truncated"])
def test_raw_files_are_downloaded_again_for_data_that_is_made_again(finished, damaged):
    raw = finished.results / "data/MNIST-small/raw/t10k-labels-idx1-ubyte"
    raw.unlink() if damaged == "missing" else damage(raw)
    damage(finished.data)
    assert finished.planned() == {"download", "prepare", "report"}
    finished.snakemake()
    assert finished.planned() == set()


def test_what_means_the_same_retrains_nothing(finished):
    finished.edit(
        "tests/data/config.yaml",
        "training: {epochs: 2}",
        "training: {optimizer: {lr: 1, rho: 0.9, name: Adadelta}, epochs: 2, shuffle: false}",
    )
    finished.edit("tests/data/config.yaml", "{name: MLP}", "{hidden: 128, name: MLP}")
    finished.edit("tests/data/config.yaml", "file: tests/data", "file: ./tests/data")
    finished.data.touch()
    assert finished.planned() == set()


def test_a_fresh_clone_with_copied_results_plans_nothing(finished, tmp_path):
    clone = fresh_project(tmp_path / "clone")
    for path in clone.folder.rglob("*"):
        os.utime(path)  # a clone's files are new
    shutil.copytree(finished.results, clone.results)
    assert not (clone.folder / ".snakemake").exists()
    assert clone.planned() == set()


CHANGES = {
    "a model": ("scripts/models/mlp.py", "x = torch", "y = x = torch", MLP | {"report"}),
    "the evaluation": (
        "scripts/lib/training/accuracy.py",
        "numbers = range",
        "numbers = wanted = range",
        {"evaluate mlp 1", "evaluate cnn 1", "report"},
    ),
    "the config": ("tests/data/config.yaml", "epochs: 2", "epochs: 3", MLP | CNN | {"report"}),
    "the data": (
        "tests/data/datasets.yaml",
        "mean: 0.1307",
        "mean: 0.13",
        {"prepare", "report"} | MLP | CNN,
    ),
}


@pytest.mark.parametrize(("file", "old", "new", "jobs"), cases(CHANGES, "a model"))
def test_a_fresh_clone_runs_what_its_records_say_is_out_of_date(
    finished, tmp_path, file, old, new, jobs
):
    clone = fresh_project(tmp_path / "clone")
    shutil.copytree(finished.results, clone.results)
    clone.edit(file, old, new)
    assert clone.planned() == jobs
    clone.snakemake()
    assert clone.planned() == set()


@pytest.mark.extended
def test_a_complete_run_is_not_trained_again_by_force(finished):
    before = contents(finished.run_folder("mlp"))
    finished.snakemake("--forcerun", "train")
    assert contents(finished.run_folder("mlp")) == before
    log = finished.results / "logs/train-mlp-seed1.log"
    assert "is complete: trained with these settings" in log.read_text()


@pytest.mark.extended
def test_one_failed_experiment_does_not_cost_the_others_their_report(finished):
    """Of the failed one, there are earlier results: they are not those of the config as it is."""
    config = "tests/data/config.yaml"
    finished.edit(config, "{name: CNN},", "{name: CNN}, optimizer: {name: SGD, lr: 1.0e+30},")
    done = finished.snakemake(check=False)
    assert done.returncode != 0
    assert "1 of 2 runs is missing" in done.stdout.replace("\n", " ")
    rows = (finished.results / "report.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["experiment", "mlp"]
    summary = (finished.results / "summary.csv").read_text()
    assert "loss is nan" in summary
    assert "loss is nan" in (finished.results / "report.html").read_text()
    assert ",incomplete," in (finished.results / "comparisons.csv").read_text()
    # Once there is nothing missing, the report says so.
    text = (finished.folder / config).read_text()
    (finished.folder / config).write_text(text[: text.index("  cnn:")])
    assert finished.planned() == {"report"}
    finished.snakemake()
    assert "missing" not in (finished.results / "report.html").read_text()
    assert finished.planned() == set()
