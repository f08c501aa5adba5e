"""A damaged file in a results folder: status, why, watch and the end of a run do without it."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import time
from pathlib import Path

import budget
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import status
import watch
from lib.cluster import submissions, summary
from lib.core.errors import UserError
from lib.core.failure_file import Failure
from lib.core.progress_file import Epoch, RunProgress
from lib.study.config import read_study
from lib.study.run_states import RunStates

JOB = "7,train,mlp,1,2026-01-31T00:00:00,a-run\n"
HOLDER = {
    "host": "h", "namespace": "n", "user": 0, "process": 1, "process_start": 1.0,
    "slurm_job": None,
}  # fmt: skip
RUN_FILES = ("progress.json", "lease.json", "failure.json", "run.json", "evaluation.json")
DAMAGED = (
    *(f"runs/{run}/seed1/{name}" for run in ("mlp", "cnn") for name in (*RUN_FILES, "history.csv")),
    *("logs/train-mlp-seed1.log", "logs/evaluate-cnn-seed1.log", "logs/slurm/jobs.csv"),
    *("logs", "logs/slurm", "runs", "runs/mlp", "runs/cnn/seed1"),
)
NUMBERS = st.integers() | st.floats() | st.integers(-(10**400), 10**400)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=9,
)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of a run that trains and has failed before, and of one that is trained."""
    monkeypatch.chdir(ROOT)
    small = read_study([Path("tests/data/config.yaml")], {})
    (tmp_path / "bin").mkdir()
    for name in ("sacct", "squeue"):  # which know no job
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin")
    return dataclasses.replace(small, results_dir=str(tmp_path / "results"))


def make_results(study) -> None:
    """Write the study's files from scratch."""
    shutil.rmtree(study.results_dir, ignore_errors=True)
    layout = study.layout
    for run in study.runs:
        files = layout.run(*run)
        files.folder.mkdir(parents=True)
        RunProgress(2, 32, 2, 8, 9.5, [Epoch(1, "test", 0.5, 0.9)]).write(files.progress)
        files.lease.write_text(json.dumps(HOLDER))
        now = study.experiments[run[0]].settings(run[1]).as_dict()
        Failure(now, "0", {}, "the training loss is nan").write(files.failure)
    files.record.write_text("{}")
    files.history.write_text("epoch,split,loss,accuracy\n1,test,0.5,0.9\n")
    layout.submissions.parent.mkdir(parents=True)
    layout.submissions.write_text(",".join(submissions.SUBMISSION) + "\n" + JOB)
    layout.log("train", "mlp", 1).write_text("error: the training loss is nan\n")


def change_one_value(content: bytes, data) -> bytes:
    """Give another value to a key, or to a cell of a table; what is neither becomes a value."""
    value = data.draw(VALUES)
    try:
        whole = json.loads(content)
        key = data.draw(st.sampled_from(sorted(whole)))
        return json.dumps(whole | {key: value}).encode()
    except (ValueError, TypeError, IndexError):
        cells = content.decode(errors="replace").split(",")
        cells[data.draw(st.integers(0, len(cells) - 1))] = str(value)
        return ",".join(cells).encode(errors="replace")


def damage(path: Path, data) -> None:
    """Change one file or folder in a random way."""
    content = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    way = data.draw(st.sampled_from(["gone", "folder", "cut", "bytes", "mixed", "json", "value"]))
    if way == "folder":
        path.mkdir()
    elif way == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    elif way == "bytes":
        path.write_bytes(data.draw(st.binary()))
    elif way == "mixed":
        place = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:place] + data.draw(st.binary(min_size=1)) + content[place + 1 :])
    elif way == "json":
        path.write_text(json.dumps(data.draw(VALUES)))
    elif way == "value":
        path.write_bytes(change_one_value(content, data))


def look(study) -> None:
    """Do what the commands do that look at a study."""
    for run in study.runs:
        RunStates(study).of(*run)
    known = submissions.jobs(study.layout)
    assert len(status.table(study, known).splitlines()) == 3
    for experiment, seed in study.runs:
        assert status.explain(study, known, f"{experiment}/seed{seed}")
    assert summary.unfinished(study)
    with contextlib.redirect_stdout(io.StringIO()):
        summary.write_resources(study)
        display = watch.Display(study)
        display.update()
        display.close()
    for run in study.runs:
        state = RunStates(study).of(*run)
        if state.training:
            assert 0 <= state.training.fraction <= 1
            watch.progress_text(state)


def test_one_damaged_file_is_no_traceback(study):
    @given(data=st.data())
    @settings(
        max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def search(data):
        make_results(study)
        damage(Path(study.results_dir) / data.draw(st.sampled_from(DAMAGED)), data)
        with contextlib.suppress(UserError):
            look(study)

    end = time.monotonic() + budget.seconds()
    while time.monotonic() < end:
        search()
