"""`make run` and `make watch`: what is shown while runs train."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import made_up
import pytest
from conftest import BIN, PATIENCE, SMALL_STUDY, fresh_project

from lib.core import records
from lib.core.failure_file import Failure
from lib.core.layout import Layout
from lib.core.progress_file import Epoch, RunProgress
from lib.core.settings import Settings

CONFIG = ("--configfile", "tests/data/config.yaml")
SNAKEMAKE = (BIN / "snakemake", "--profile", "profiles/local", *CONFIG)
BAD = f"""{SMALL_STUDY}training: {{epochs: 1}}
experiments: {{bad: {{model: {{name: MLP}}, optimizer: {{name: SGD, lr: 1e30}}}}}}
"""


@pytest.fixture(scope="module")
def piped(tmp_path_factory):
    """A project, and what `make run` shows in a pipe."""
    project = fresh_project(tmp_path_factory.mktemp("watch") / "project", data=True)
    return project, project.script("watch", *CONFIG, "--", *SNAKEMAKE).stdout


def test_in_a_pipe_there_is_a_line_for_each_epoch_of_each_run(piped):
    project, shown = piped
    for experiment in ("mlp", "cnn"):
        history = (project.run_folder(experiment) / "history.csv").read_text().splitlines()[1:]
        lines = re.findall(
            rf"^{experiment}, seed 1: epoch (\d) of 2, test accuracy ([\d.]+)%", shown, re.MULTILINE
        )
        assert [
            (row.split(",")[0], f"{100 * float(row.split(',')[5]):.2f}") for row in history
        ] == lines
    assert "\r" not in shown
    assert "2 of 2 runs are done" in shown


def test_what_a_stranger_does_not_need_is_not_shown(piped):
    _, shown = piped
    for words in ("Config MD5", "localrule", "input:", "reason:", "jobid", "Select jobs"):
        assert words not in shown
    assert "The whole report: results/small/report.html" in shown
    assert len(shown.splitlines()) < 40


def test_what_was_done_before_is_not_shown_again(piped):
    project, _ = piped
    shown = project.script("watch", *CONFIG, "--", *SNAKEMAKE).stdout
    assert "epoch" not in shown
    assert "Nothing to be done" in shown
    assert project.script("watch", *CONFIG).stdout.splitlines() == [
        "2 of 2 runs are done, 0 are training"
    ]


@pytest.mark.extended
def test_a_run_that_is_trained_again_is_shown_again(piped, tmp_path):
    project = piped[0].copy(tmp_path / "again")
    project.edit("tests/data/config.yaml", "{name: MLP},", "{name: MLP}, batch_size: 32,")
    shown = project.script("watch", *CONFIG, "--", *SNAKEMAKE).stdout
    assert re.findall(r"^(\w+), seed 1: epoch (\d)", shown, re.MULTILINE) == [
        ("mlp", "1"),
        ("mlp", "2"),
    ]
    assert shown.index("mlp, seed 1: epoch 2") < shown.index("The whole report:")


@pytest.mark.extended
def test_a_run_that_was_trained_but_not_evaluated_again_is_not_done(piped, tmp_path):
    project = piped[0].copy(tmp_path / "trained")
    path = project.run_folder("mlp") / "run.json"
    record = json.loads(path.read_text()) | {"seconds": 1.0}  # as of another training
    records.write(
        path, record, [path.with_name("model.safetensors"), path.with_name("history.csv")]
    )
    assert " trained " in project.script("status", *CONFIG).stdout.splitlines()[1]
    assert "Nothing is left to do" not in project.script(
        "status", *CONFIG, "--why", "mlp/seed1"
    ).stdout  # fmt: skip


def test_a_run_that_always_fails_ends_the_watching(project):
    files = Layout(project.results).run("mlp", 1)
    files.folder.mkdir(parents=True)
    (project.folder / "one.yaml").write_text(
        "results_dir: results/small\nexperiments: {mlp: {model: {name: MLP}}}\n"
    )
    settings = Settings.of({"model": {"name": "MLP"}, "seed": 1}).as_dict()
    Failure(settings, "", {}, "the loss is nan").write(files.failure)
    shown = project.script("watch", "--configfile", "one.yaml").stdout
    assert shown == "0 of 1 runs are done, 0 are training, 1 have failed\n"


@pytest.mark.extended
def test_a_large_study_is_counted_the_same_at_every_look(piped, tmp_path):
    """There, the files of the runs that are done are read only now and then."""
    project = piped[0].copy(tmp_path / "large")
    made_up.make_up(project.results, project.run_folder("mlp"), experiments=1, seeds=60)
    for seed in range(1, 61):
        files = Layout(project.results).run("made00", seed)
        if seed % 2:
            record = json.loads(files.record.read_text())
            files.record.unlink()
            failed = Failure(record["settings"], record["data_sha256"], {}, "the loss is nan")
            failed.write(files.failure)
    (Layout(project.results).run("made00", 60).evaluation).unlink()
    (project.folder / "many.yaml").write_text(
        (project.folder / "tests/data/config.yaml").read_text().split("experiments:")[0]
        + f"seeds: {list(range(1, 61))}\nexperiments: {{made00: {{model: {{name: MLP}}}}}}\n"
    )
    process = start(project, "--configfile", "many.yaml", "--interval", "0.05")
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=PATIENCE)[0]
    assert shown == "29 of 60 runs are done, 0 are training, 30 have failed\n"


def test_a_run_of_other_settings_is_out_of_date(piped, tmp_path):
    project = piped[0].copy(tmp_path / "outdated")
    project.edit("tests/data/config.yaml", "{name: MLP},", "{name: MLP}, batch_size: 32,")
    assert "out of date" in project.script("status", *CONFIG).stdout.splitlines()[1]
    why = project.script("status", *CONFIG, "--why", "mlp/seed1").stdout
    assert "mlp/seed1: out of date\n  to train again: other settings (batch_size)\n" in why
    assert "It will be trained again" in why


def test_a_training_that_was_killed_is_not_shown_as_training(project):
    files = training(project, 2, 16, 30.0)
    os.utime(files.lease, (0, 0))
    assert project.script("status", *CONFIG).stdout.splitlines()[1].split()[2:4] == [
        "not",
        "started",
    ]


def test_a_reader_that_stops_reading_ends_the_command(project):
    # It goes on printing: only somebody who writes notices that nobody reads.
    script = "import time\nwhile True: print('line', flush=True); time.sleep(0.1)"
    command = [sys.executable, "scripts/watch.py", *CONFIG, "--", sys.executable, "-c", script]
    done = project.run("bash", "-c", 'exec "$@" 2>&1 | head -1', "bash", *command, check=False)
    assert "Traceback" not in done.stdout


def test_errors_are_shown_and_the_status_is_the_commands(project):
    (project.folder / "bad.yaml").write_text(BAD)
    bad = ("--configfile", "bad.yaml")
    command = (BIN / "snakemake", "--profile", "profiles/local", *bad)
    done = project.script("watch", *bad, "--", *command, check=False)
    assert done.returncode == 1
    assert "error: the training loss is nan at epoch 1, step 2" in done.stdout
    assert "bad, seed 1: train failed: the training loss is nan" in done.stdout
    assert "Config MD5" not in done.stdout


def test_a_command_that_says_nothing_of_an_error_is_quoted(project):
    script = "import sys; print('something went wrong', file=sys.stderr); sys.exit(7)"
    done = project.script("watch", *CONFIG, "--", sys.executable, "-c", script, check=False)
    assert done.returncode == 7
    assert "something went wrong" in done.stdout


def test_a_command_that_does_not_exist(project):
    done = project.script("watch", *CONFIG, "--", "no-such-command", check=False)
    assert done.returncode == 1
    assert "error: cannot start no-such-command: No such file" in done.stdout


def training(project, epoch, step, seconds):
    """Pretend that the MLP trains, by the files that a training writes."""
    files = Layout(project.results).run("mlp", 1)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.lease.touch()
    done = [Epoch(number, "test", 0.5, 0.9 + number / 100) for number in range(1, epoch)]
    RunProgress(2, 32, epoch, step, seconds, done).write(files.progress)
    return files


@pytest.mark.extended
def test_a_terminal_shows_a_bar_for_each_run(project):
    if not shutil.which("script"):
        pytest.skip("needs script(1) for a terminal")
    training(project, 2, 16, 30.0)
    watch = f"{sys.executable} scripts/watch.py {' '.join(CONFIG)}"
    command = f"stty rows 24 cols 100; exec env --default-signal=INT timeout -s INT -k 9 8 {watch}"
    done = project.run("script", "-qec", command, "/dev/null", check=False)  # 124: the time is up
    assert re.search(
        r"mlp, seed 1 \|█+ +\| +75%  epoch 2 of 2, test accuracy 91.00%, about 10 s left",
        done.stdout,
    )
    assert "0 of 2 runs are done, 1 are training" in done.stdout
    assert "Traceback" not in done.stdout


def start(project, *arguments) -> subprocess.Popen:
    """Start the command so that Ctrl-C reaches it, also where tests run in the background."""
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "scripts/watch.py", *CONFIG, *arguments],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_watching_follows_a_run_and_ctrl_c_ends_it(project):
    training(project, 1, 8, 5.0)
    process = start(project, "--interval", "0.2")
    assert process.stdout.readline() == "0 of 2 runs are done, 1 are training\n"
    training(project, 2, 16, 30.0)
    assert process.stdout.readline() == (
        "mlp, seed 1: epoch 1 of 2, test accuracy 91.00%, about 10 s left\n"
    )
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=PATIENCE)[0]
    assert (process.returncode, rest) == (0, "")


def test_ctrl_c_waits_for_the_end_of_a_look(project):
    """An exception could come where nothing catches it: in the deletion of a bar."""
    training(project, 1, 8, 5.0)
    script = (
        "import os, signal, watch\n"
        "from lib.study.config import read_study\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "update = watch.Display.update\n"
        "def interrupted(self):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return update(self)\n"
        "watch.Display.update = interrupted\n"
        f"watch.watch(read_study([{CONFIG[1]!r}], {{}}), 60)\n"
    )
    scripts = {**os.environ, "PYTHONPATH": str(project.folder / "scripts")}
    done = project.run(sys.executable, "-c", script, env=scripts, timeout=50)
    assert done.stdout == "0 of 2 runs are done, 1 are training\n"


@pytest.mark.extended
def test_ctrl_c_in_a_run_ends_the_command_too(project):
    """While both train: Python shows a traceback if it is interrupted while it starts."""
    project.edit(CONFIG[1], "epochs: 2", "epochs: 500")
    process = start(project, "--", *SNAKEMAKE)
    both = [Layout(project.results).run(experiment, 1) for experiment in ("mlp", "cnn")]
    deadline = time.monotonic() + PATIENCE
    while not all(run.lease.exists() for run in both) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    shown = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode != 0
    assert "Traceback" not in shown
    assert not any(run.record.exists() for run in both)


def test_status_reads_the_progress_file(project):
    training(project, 2, 16, 30.0)
    _, mlp, cnn = project.script("status", *CONFIG).stdout.splitlines()
    assert mlp.split() == ["mlp", "1", "training", "1/2", "0.9100"]
    assert cnn.split() == ["cnn", "1", "not", "started", "0/2"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"epochs": 2}', json.dumps({"done": 3})])
def test_a_progress_file_that_is_none_is_no_progress(project, content):
    files = training(project, 2, 16, 30.0)
    files.progress.write_text(content)
    assert RunProgress.read(files.progress) is None
    assert "0/2" in project.script("status", *CONFIG).stdout
