"""The workflow from end to end, on the small data set."""

import csv
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import BIN, ROOT, SMALL_STUDY, fresh_project, untouched


def report(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_it_writes_what_the_design_says(finished_once):
    files = {
        str(path.relative_to(finished_once.results))
        for path in finished_once.results.rglob("*")
        if path.is_file()
    }
    runs = {
        f"runs/{experiment}/seed1/{file}"
        for experiment in ("mlp", "cnn")
        for file in (
            "model.safetensors", "history.csv", "run.json",
            "predictions.csv.gz", "probabilities.safetensors", "accuracy.csv",
            "evaluation.json",
        )
    }  # fmt: skip
    logs = {
        f"logs/{stage}-{experiment}-seed1.log"
        for stage in ("train", "evaluate")
        for experiment in ("mlp", "cnn")
    }
    logs |= {"logs/download-MNIST-small.log", "logs/prepare-MNIST-small.log", "logs/report.log"}
    ends = ("json", "prepared.json", "safetensors", "images.csv.gz", "audit.json")
    data = {f"data/MNIST-small.{end}" for end in ends} | {"study.yaml", "data/datasets.yaml"}
    raw = {file for file in files if file.startswith("data/MNIST-small/raw/")}
    kept = {
        f"{folder}/{finished_once.record('mlp')[key]}.{ending}"
        for folder, key, ending in (
            ("code", "snapshot", "tar.gz"), ("environments", "environment", "json"),
        )
    }  # fmt: skip
    assert files - raw == runs | logs | data | kept | {
        "report.csv", "summary.csv", "comparisons.csv", "report.html", "resources.csv",
        *(f"figures/{path.stem}.svg" for path in (ROOT / "workflow/report").glob("*.rst")
          if path.stem != "search"),
    }  # fmt: skip
    for experiment in ("mlp", "cnn"):
        assert sum(f"{experiment}" in file for file in files) <= 10


def test_others_may_read_the_results(finished_once, tmp_path):
    """Every file has the mode that any other new file has."""
    (tmp_path / "new").touch()
    expected = (tmp_path / "new").stat().st_mode
    for path in finished_once.results.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode == expected, path


def test_a_jobs_log_begins_with_when_and_where(finished_once):
    """Before Python: were it empty when the job dies, Snakemake would not show Slurm's own."""
    for stage in ("train", "evaluate"):
        first = (
            (finished_once.results / "logs" / f"{stage}-mlp-seed1.log").read_text().split("\n")[0]
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ on \S+", first)


def test_it_ends_with_the_verdict(finished_once):
    printed = finished_once.printed
    assert "The cnn classifies 9" in printed
    assert "(McNemar p" in printed.replace("; ", "(") or "is not shown" in printed
    assert re.search(r"^mlp +1 +86\.\d\d +8\d\.\d\d to 8", printed, re.MULTILINE)
    assert "The whole report: results/small/report.html" in printed


def test_it_learns(finished_once):
    rows = {row["experiment"]: row for row in report(finished_once.results / "report.csv")}
    assert float(rows["mlp"]["test_accuracy"]) > 0.8
    assert float(rows["cnn"]["test_accuracy"]) > 0.85


@pytest.mark.extended
def test_it_runs_without_an_activated_environment(project):
    """With nothing but the system's folders on the PATH, and without compiled bytecode."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"HOME": str(project.folder)}
    project.snakemake("--until", "prepare", env=environment)
    assert project.data.is_file()


def test_seeds_on_the_command_line(project):
    jobs = project.planned("--config", "seeds=[1,2,3]")
    assert {job for job in jobs if job.startswith("train")} == {
        f"train {experiment} {seed}" for experiment in ("mlp", "cnn") for seed in (1, 2, 3)
    }


@pytest.mark.extended
def test_nested_values_on_the_command_line(project, with_data):
    done = project.snakemake(
        "--config", "training={epochs: 1, optimizer: {name: SGD, lr: 1e-2}}",
        'experiments={mlp: {shuffle: true}}', "--until", "train", "--forcerun", "train",
    )  # fmt: skip
    assert done.returncode == 0
    settings = project.record("mlp")["settings"]
    assert settings["epochs"] == 1
    assert settings["optimizer"] == {"name": "SGD", "lr": 0.01}
    assert (settings["shuffle"], project.record("cnn")["settings"]["shuffle"]) == (True, False)


def test_a_config_file_stands_alone(project):
    (project.folder / "one.yaml").write_text(
        "dataset: MNIST-small\ndatasets_file: tests/data/datasets.yaml\n"
        "experiments: {only: {model: {name: MLP}}}\n"
    )
    jobs = project.planned(config="one.yaml")
    assert {job for job in jobs if job.startswith("train")} == {"train only 1"}


@pytest.mark.extended
def test_a_config_file_stands_alone_in_spawned_jobs(project, with_data):
    """Snakemake started for one job, as an executor does it on another node."""
    (project.folder / "one.yaml").write_text(
        f"{SMALL_STUDY}experiments: {{only: {{model: {{name: MLP}}, epochs: 1}}}}\n"
    )
    project.snakemake("--until", "prepare", config="one.yaml")
    target = "results/small/runs/only/seed1/model.safetensors"
    project.run(
        BIN / "snakemake", target, "--mode", "remote", "--target-jobs",
        "train:experiment=only,seed=1", "--cores", "1", "--configfiles", "one.yaml",
        "--config", "seeds=['1']", "--force", "--nolock", "--no-hooks",
    )  # fmt: skip
    assert project.record("only")["settings"]["epochs"] == 1


@pytest.fixture
def without_slurm(tmp_path) -> dict[str, str]:
    """The environment of a machine without Slurm."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "sh", "which"):  # but no sinfo, sbatch, squeue, sacct
        (commands / name).symlink_to(shutil.which(name))
    return {"PATH": str(commands), "HOME": str(tmp_path)}


def test_the_slurm_profile_plans_without_slurm_and_without_data(project, without_slurm):
    for config in ((), ("--configfile", "tests/data/config.yaml")):
        command = [BIN / "snakemake", "--profile", "profiles/slurm", "-n", *config]
        output = project.run(*command, env=without_slurm).stdout
        assert "Train cnn, seed 1" in output
        assert "Warning" not in output  # such as of what Snakemake cannot evaluate yet
    assert not project.results.exists()


def test_a_profile_is_made_only_where_there_is_slurm(project, without_slurm):
    before = untouched(project.folder / "profiles")
    done = project.script("make_profile", "--write", env=without_slurm, check=False)
    assert done.returncode == 1
    assert done.stdout == (
        "error: sbatch is not on the PATH: log in to the cluster, or load its Slurm module\n"
        "A profile is made on the cluster that it is for.\n"
    )
    assert untouched(project.folder / "profiles") == before


def test_the_snakefile_where_the_ecosystem_looks_for_it(finished):
    command = [BIN / "snakemake", "-s", "workflow/Snakefile", "--profile", "profiles/local", "-n"]
    output = finished.run(*command, "--configfile", "tests/data/config.yaml").stdout
    assert "Nothing to be done" in output


def test_the_order_of_the_rules_files_does_not_matter(project):
    lines = (project.folder / "Snakefile").read_text().splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if re.match(r"include:.*/(?!common)\w+\.smk", line)]
    assert len(places) == 7
    reordered = [lines[i] for i in reversed(places)]
    for place, line in zip(places, reordered, strict=True):
        lines[place] = line
    before = project.planned()
    (project.folder / "Snakefile").write_text("".join(lines))
    assert project.planned() == before


def test_a_dry_run_needs_no_profile(project):
    output = project.run(BIN / "snakemake", "-n").stdout
    assert "Download MNIST into results/data" in output


@pytest.mark.extended
def test_two_studies_do_not_meet(finished):
    """A second results_dir shares the data and nothing else."""
    before = untouched(finished.results)
    second = ("--config", "results_dir=results/a second", "training={epochs: 1}")
    assert finished.planned(*second) == {
        "download", "prepare", "train mlp 1", "train cnn 1", "evaluate mlp 1", "evaluate cnn 1",
        "report",
    }  # fmt: skip
    finished.snakemake(*second)
    assert untouched(finished.results) == before
    results = finished.folder / "results" / "a second"
    assert len(report(results / "report.csv")) == 2
    assert not list(results.rglob("*ubyte*"))  # the raw files are shared
    log = (results / "logs" / "download-MNIST-small.log").read_text()
    assert "all files are there and intact" in log


def test_one_failed_experiment_stops_no_other(project, with_data):
    config = (
        "{mlp: {model: {name: MLP}}, bad: {model: {name: MLP}, optimizer: {name: SGD, lr: 1e30}}}"
    )
    (project.folder / "bad.yaml").write_text(
        f"{SMALL_STUDY}training: {{epochs: 1}}\nruns_per_job: 2\nexperiments: {config}\n"
    )
    done = project.snakemake(config="bad.yaml", check=False)
    assert done.returncode != 0
    assert (project.run_folder("mlp") / "accuracy.csv").is_file()
    assert [row["experiment"] for row in report(project.results / "report.csv")] == ["mlp"]
    assert "the training loss is nan at epoch 1, step 2" in done.stdout  # the failed log is shown
    ending, incomplete = done.stdout.split("Not finished:")[1].split("\n\n", 1)
    assert "1 of 2 runs is missing" in incomplete.replace("\n", " ")
    assert "bad, seed 1: train failed: the training loss is nan at epoch 1, step 2: " in ending
    assert ending.endswith("; change experiments.bad in the config")
    assert "resumes" not in ending
    assert "mlp" not in ending
    project.edit("bad.yaml", "lr: 1e30", "lr: 1e-2")
    assert project.planned(config="bad.yaml") == {"train bad 1", "evaluate bad 1", "report"}
    project.snakemake(config="bad.yaml")
    assert len(report(project.results / "report.csv")) == 2


AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


def can_be_nobody() -> bool:
    """Whether we may become another user, who can then read this interpreter."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    # A shell between: the first program of setpriv may still have root's rights to read.
    command = [*AS_NOBODY, "sh", "-c", f"{BIN}/python -c ''"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.extended
@pytest.mark.skipif(not can_be_nobody(), reason="cannot become another user with this interpreter")
def test_it_runs_as_another_user():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        project = fresh_project(Path(folder) / "project")
        for path in (project.folder, *project.folder.rglob("*")):
            os.chown(path, 65534, 65534)
        command = [BIN / "snakemake", "--profile", "profiles/local", "--until", "prepare"]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(project.folder)}
        configfile = ("--configfile", "tests/data/config.yaml")
        project.run(*AS_NOBODY, *command, *configfile, env=environment)
        assert project.data.stat().st_uid == 65534


@pytest.mark.parametrize("option", ["-s", "--directory"])
def test_from_another_folder_it_says_where_to_go(project, tmp_path, option):
    value = project.folder / "Snakefile" if option == "-s" else tmp_path
    cwd = tmp_path if option == "-s" else project.folder
    config = ("--configfile", project.folder / "tests/data/config.yaml")
    done = project.run(
        BIN / "snakemake", option, value, "-n", "--cores", "1", *config, check=False, cwd=cwd
    )
    assert done.returncode == 1
    assert f"run snakemake in the folder of this project: cd {project.folder}\n" in done.stdout
    assert "No module" not in done.stdout


def test_the_report_names_a_config_that_exists(finished):
    """And that says the same, whatever becomes of the files of the config."""
    command = "snakemake --profile profiles/local --configfile results/small/study.yaml"
    assert command in (finished.results / "report.html").read_text()
    for path in (finished.folder / "tests/data").glob("*.yaml"):
        path.unlink()
    assert finished.planned(config="results/small/study.yaml") == set()
