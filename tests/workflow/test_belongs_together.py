"""A result belongs to one code, one data set and one set of weights, or there is no result."""

import json
import shutil
import subprocess
import sys
import time

import pytest
from conftest import BIN, PATIENCE, SMALL_CONFIG, Project, cases

OUTPUTS = ("model.safetensors", "history.csv", "run.json")


def edit_code(project: Project, file: str = "scripts/models/mlp.py") -> None:
    with (project.folder / file).open("a") as code:
        code.write("EDITED = True\n")


def by_hand(project: Project, name: str, *arguments) -> str:
    """Run a script that must fail with one message, and return the message."""
    done = project.script(name, *arguments, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    (message,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    return message


def evaluate(project: Project, folder) -> str:
    return by_hand(project, "evaluate", "--run", folder, "--data", project.data)


def report(project: Project) -> str:
    output = project.folder / "elsewhere"
    options = ("--results", project.results, "--data", project.data, "--output", output)
    message = by_hand(project, "report", *options)
    assert not output.exists()
    return message


def train_and_meanwhile(project: Project, folder, what) -> tuple[int, str]:
    """Do something once a training has begun; return its exit status, and what it then printed."""
    command = ["scripts/train.py", "--set", "model.name=MLP", "epochs=50"]
    process = subprocess.Popen(
        [sys.executable, *command, "--data", project.data, "--output", folder],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while process.poll() is None and "Test set" not in process.stdout.readline():
        time.sleep(0.01)
    what()
    rest = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, rest


def test_what_is_edited_while_a_study_runs_changes_nothing_of_it(project, with_data, finished_once):
    """And the next start sees it."""
    command = [BIN / "snakemake", "--profile", "profiles/local", "--cores", "1"]
    process = subprocess.Popen(
        [*command, "--configfile", SMALL_CONFIG],
        cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = iter(process.stdout.readline, "")
    said = [next(line for line in lines if "Train " in line)]
    broken = project.edit_everything()
    said += lines
    assert process.wait(PATIENCE) == 0, "".join(said)
    for experiment in ("mlp", "cnn"):
        for file in ("model.safetensors", "predictions.csv.gz"):
            one, other = (each.run_folder(experiment) / file for each in (project, finished_once))
            assert one.read_bytes() == other.read_bytes()
    snapshots = {project.record(name)["snapshot"] for name in ("mlp", "cnn")}
    kept = [path.name.removesuffix(".tar.gz") for path in (project.results / "code").iterdir()]
    assert snapshots == set(kept)
    assert not list((project.folder / ".snakemake/code").iterdir())
    assert "Snakefile" in project.snakemake("-n", check=False).stdout
    for path, text in broken.items():
        path.write_text(text)
    assert {"train mlp 1", "train cnn 1"} <= project.planned()


@pytest.mark.extended
def test_a_model_that_is_edited_while_it_trains(finished):
    """The weights would be of code that is not there any more."""
    folder = finished.run_folder("mlp")
    before = {name: (folder / name).read_bytes() for name in OUTPUTS}
    status, rest = train_and_meanwhile(finished, folder, lambda: edit_code(finished))
    assert status == 1
    assert "error: scripts/models/mlp.py changed during the training" in rest
    assert {name: (folder / name).read_bytes() for name in OUTPUTS} == before


@pytest.mark.extended
def test_the_commit_is_that_of_the_start(finished):
    """Whoever waits for a training may go on with other commits."""

    def git(*words):
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        return finished.run("git", *who, *words).stdout.strip()

    def commit():
        git("commit", "--quiet", "--allow-empty", "--message=one more")

    git("init", "--quiet")
    git("add", "scripts", "workflow")
    commit()
    first = git("rev-parse", "HEAD")
    status, rest = train_and_meanwhile(finished, finished.run_folder("mlp", 7), commit)
    assert status == 0, rest
    record = finished.record("mlp", 7)
    assert (record["git_commit"], record["git_dirty"]) == (first, False)
    assert git("rev-parse", "HEAD") != first


@pytest.mark.parametrize("file", cases(["models/mlp.py", "lib/training/loop.py"], "models/mlp.py"))
def test_weights_of_other_code_are_not_evaluated(finished, file):
    edit_code(finished, f"scripts/{file}")
    assert f"data or code than those of now: scripts/{file}" in evaluate(
        finished, finished.run_folder("mlp")
    )
    assert "train mlp 1" in finished.planned()


def test_weights_of_other_settings_are_not_evaluated(finished):
    settings = finished.record("mlp")["settings"]
    file = finished.folder / "settings.json"
    file.write_text(json.dumps(settings))
    options = ("--run", finished.run_folder("mlp"), "--data", finished.data, "--settings", file)
    finished.script("evaluate", *options)
    message = by_hand(finished, "evaluate", *options, "--set", "epochs=3")
    assert "the setting epochs" in message


@pytest.mark.extended
def test_new_weights_are_not_paired_with_an_older_evaluation(finished):
    folder = finished.run_folder("mlp")
    options = ("--data", finished.data, "--output", folder)
    finished.script("train", *options, "--set", "model.name=MLP", "epochs=1")
    assert str(folder.relative_to(finished.folder)) in report(finished)
    assert finished.planned() == {"train mlp 1", "evaluate mlp 1", "report"}


@pytest.mark.extended
def test_a_run_in_the_folder_of_another_seed(finished):
    folder = finished.run_folder("mlp", 5)
    shutil.copytree(finished.run_folder("mlp"), folder)
    wrong = "is of seed 1, not of seed 5"
    assert wrong in evaluate(finished, folder)
    assert wrong in report(finished)
    assert wrong in by_hand(finished, "predict", "--model", folder, "README.md")
    planned = finished.planned("--config", "seeds=[1,5]")
    assert {"train mlp 5", "train cnn 5"} <= planned


@pytest.mark.extended
def test_the_weights_of_another_run(finished):
    edited = finished.folder / "scripts/models/cnn.py"
    cnn = finished.run_folder("cnn")
    options = ("--data", finished.data, "--set", "model.name=CNN", "epochs=1", "seed=2")
    finished.script("train", *options, "--output", finished.folder / "other")
    shutil.copy(finished.folder / "other/model.safetensors", cnn / "model.safetensors")
    assert edited.is_file()
    for message in (
        evaluate(finished, cnn),
        by_hand(finished, "predict", "--model", cnn, "README.md"),
    ):
        assert "cnn/seed1/model.safetensors is truncated, corrupt, or not the file" in message
    assert finished.planned() == {"train cnn 1", "evaluate cnn 1", "report"}


@pytest.mark.parametrize("file", cases(["run.json", "evaluation.json"], "evaluation.json"))
def test_a_record_that_was_edited(finished, file):
    path = finished.run_folder("mlp") / file
    path.write_text(path.read_text().replace('"git_dirty"', '"dirty"'))
    message = report(finished)
    assert f"{file} was changed after it was written" in message
    stages = {"evaluate mlp 1", "report"} | ({"train mlp 1"} if file == "run.json" else set())
    assert finished.planned() == stages
