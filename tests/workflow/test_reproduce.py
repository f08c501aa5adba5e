"""Runs that are made again from their records."""

import csv
import json
from dataclasses import replace

import pandas as pd
import pytest
from conftest import SMALL_CONFIG, cases
from made_up import change_record
from safetensors.torch import load_file, save_file

from lib.core.layout import EVALUATED, RunFiles
from lib.reporting import reproduction
from lib.reporting.reproduction import DIFFERS, REPRODUCED, ROUNDING, Stored, compare


def repeat(project, *options, check=True):
    """Repeat the MLP; return what is said."""
    data = ("--run", project.run_folder("mlp"), "--data", project.data)
    return project.script("repeat", *data, *options, check=check)


def test_all_rows_are_repeated_with_the_code_that_was_kept(finished):
    """Whatever the code is now."""
    finished.edit(
        "scripts/lib/training/loop.py", "batch_loss.backward()", "(-batch_loss).backward()"
    )
    finished.edit("scripts/models/mlp.py", "self.fc1(x)", "self.fc1(-x)")
    before = {path: path.read_bytes() for path in finished.run_folder("mlp").iterdir()}
    done = finished.script("reproduce", "--configfile", SMALL_CONFIG, "--run", "all", "--exact")
    assert f"mlp/seed1: {REPRODUCED}\ncnn/seed1: {REPRODUCED}\n2 of 2 runs" in done.stdout
    with (finished.results / "reproduction.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["outcome"]) for row in rows] == [
        ("mlp/seed1", REPRODUCED), ("cnn/seed1", REPRODUCED),
    ]  # fmt: skip
    assert {path: path.read_bytes() for path in finished.run_folder("mlp").iterdir()} == before
    assert not list((finished.folder / ".snakemake/reproduce").glob("*"))


@pytest.mark.extended
def test_a_run_of_no_kept_code_is_repeated_as_long_as_the_code_is_the_same(finished):
    change_record(finished.run_folder("mlp"), "run.json", snapshot=None)
    assert f": {REPRODUCED}" in repeat(finished).stdout
    finished.edit("scripts/models/mlp.py", "self.fc1(x)", "self.fc1(-x)")
    said = repeat(finished, check=False)
    assert said.returncode == 1
    assert "its code was not kept" in said.stdout
    assert "scripts/models/mlp.py" in said.stdout


def exchange_weights(project):
    other = project.run_folder("mlp") / "model.safetensors"
    tensors = load_file(other)
    save_file({name: each + 1 for name, each in tensors.items()}, other)


def exchange_and_seal(project):
    exchange_weights(project)
    change_record(project.run_folder("mlp"), "run.json")


def edit_record(project):
    path = project.run_folder("mlp") / "run.json"
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 4'))


def other_data(project):
    tensors = load_file(project.data)
    tensors["train_images"][0, 0, 0] += 1
    save_file(tensors, project.data, metadata={"classes": json.dumps(list("0123456789"))})
    project.data.with_name("MNIST-small.prepared.json").unlink()


def other_settings(project):
    settings = project.record("mlp")["settings"] | {"epochs": 1}
    change_record(project.run_folder("mlp"), "run.json", settings=settings)


def damaged_code(project):
    (path,) = (project.results / "code").iterdir()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_code(project):
    code = project.record("mlp")["code"] | {"models/mlp.py": "0"}
    change_record(project.run_folder("mlp"), "run.json", code=code)


WRONG = {
    "exchanged weights": (exchange_weights, "model.safetensors is truncated, corrupt, or not the"),
    "an edited record": (edit_record, "run.json was changed after it was written"),
    "other data": (other_data, "other data: the record names"),
    "damaged code": (damaged_code, ".tar.gz"),
    "other code": (other_code, "other code than in"),
    "weights that the code does not give": (exchange_and_seal, "not what the record's code gives"),
    "settings that the command had not": (other_settings, "other settings in its command: epochs"),
}


@pytest.mark.parametrize(
    ("do", "words"),
    cases(WRONG, "exchanged weights", "other data", "weights that the code does not give"),
)
def test_what_is_wrong_is_told_apart(finished, do, words):
    do(finished)
    said = repeat(finished, check=False)
    assert said.returncode == 1
    assert f": {DIFFERS}" in said.stdout
    assert words in said.stdout


@pytest.fixture
def stored(finished_once):
    return Stored.read(RunFiles(finished_once.run_folder("mlp")))


def elsewhere(stored, **machine):
    """The same, made on another machine: some numbers of it are a little different."""
    history = stored.history.copy()
    history.loc[1, "train_loss"] *= 1 + 1e-6
    predictions = stored.predictions.copy()
    predictions.loc[:2, "prediction"] = (predictions.loc[:2, "prediction"] + 1) % 10
    record = stored.record | machine
    record["files"] = record["files"] | {"model.safetensors": "0"}
    return replace(stored, record=record, history=history, predictions=predictions)


def test_another_machine_agrees_to_rounding(stored, monkeypatch):
    other = elsewhere(stored, threads=4, processor="Another One")
    found = compare(stored, other)
    assert found.outcome == ROUNDING
    assert found.first_difference.startswith("epoch 2: train_loss 0.")
    assert found.predictions_differ == 3
    assert found.why.startswith(f"the likely cause: processor {stored.record['processor']}, here")
    assert "threads 1, here 4" in found.why
    assert reproduction.status([found], exact=False) == 0
    assert reproduction.status([found], exact=True) == 3
    monkeypatch.setattr(reproduction, "another_seed", lambda _: 3)
    assert compare(stored, other).outcome == ROUNDING
    monkeypatch.setattr(reproduction, "another_seed", lambda _: 2)
    assert compare(stored, other).outcome == DIFFERS


def test_the_same_machine_has_no_excuse(stored):
    found = compare(stored, elsewhere(stored))
    assert found.outcome == DIFFERS
    assert "all else are as in the record" in found.why
    assert reproduction.status([found], exact=False) == 1


def test_a_large_difference_is_none_of_rounding(stored):
    other = elsewhere(stored, processor="Another One")
    other.history.loc[0, "train_loss"] *= 1.1
    assert compare(stored, other).outcome == DIFFERS


def test_versions_and_random_algorithms_are_causes(stored):
    versions = stored.record["versions"] | {"torch": "9.9", "snakemake": "1"}
    other = elsewhere(stored, versions=versions)
    found = compare(replace(stored, record=stored.record | {"deterministic": False}), other)
    assert f"torch {stored.record['versions']['torch']}, here 9.9" in found.why
    assert "snakemake" not in found.why
    assert "not deterministic" in found.why


def test_how_much_another_seed_differs(stored, tmp_path):
    assert reproduction.another_seed(stored) is None
    runs = [tmp_path / f"seed{seed}" for seed in (1, 2, 3)]
    for seed, folder in enumerate(runs):
        folder.mkdir()
        for name in EVALUATED:
            (folder / name).touch()
        other = stored.predictions.copy()
        other.loc[: 10 * seed - 1, "prediction"] = 11
        pd.DataFrame(other).to_csv(folder / "predictions.csv.gz", index=False)
    assert reproduction.another_seed(replace(stored, files=RunFiles(runs[0]))) == 10
