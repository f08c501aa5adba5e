"""File systems that lack something: hard links, or one file system for all results."""

import os

import pytest

EVALUATED = "results/small/runs/mlp/seed1/accuracy.csv"
NO_LINKS = """
import os

def refuse(*_, **__):
    raise OSError(1, "Operation not permitted")

os.link = refuse
"""


@pytest.fixture
def no_hard_links(tmp_path):
    """An environment in which neither Python nor ln makes a hard link."""
    folder = tmp_path / "no-links"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NO_LINKS)
    ln = folder / "ln"
    ln.write_text(
        '#!/bin/sh\ncase "$1" in -s*) exec /bin/ln "$@" ;; esac\n'
        'echo "ln: Operation not permitted" >&2\nexit 1\n'
    )
    ln.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(folder), "PATH": path}


def test_without_hard_links(project, with_data, no_hard_links):
    project.snakemake(EVALUATED, "--until", "train", env=no_hard_links)
    log = project.results / "logs" / "train-mlp-seed1.log"
    assert log.is_symlink()  # until the run is evaluated, its text is in the run's folder
    assert str(log.readlink()) == "../runs/mlp/seed1/train.log"
    text = log.read_text()
    assert "Train Epoch: 2" in text
    project.snakemake(EVALUATED, env=no_hard_links)
    assert log.is_file()
    assert not log.is_symlink()
    assert log.read_text() == text
    assert not (project.run_folder("mlp") / "train.log").exists()


@pytest.mark.extended
def test_what_a_log_said_before_it_started_again_is_still_there(project, with_data):
    project.run_folder("mlp").mkdir(parents=True)
    (project.run_folder("mlp") / "train.log").write_text("what it said before\n")
    project.snakemake(EVALUATED)
    log = (project.results / "logs" / "train-mlp-seed1.log").read_text()
    assert log.startswith("what it said before\n20")
    assert "Train Epoch: 2" in log


@pytest.mark.extended
def test_runs_on_another_file_system(project, tmp_path):
    """`results/runs` is a link to a larger disk."""
    elsewhere = tmp_path / "scratch"
    elsewhere.mkdir()
    project.results.mkdir(parents=True)
    (project.results / "runs").symlink_to(elsewhere)
    project.snakemake(EVALUATED)
    assert (elsewhere / "mlp" / "seed1" / "accuracy.csv").exists()
    assert "Train Epoch: 2" in (project.results / "logs" / "train-mlp-seed1.log").read_text()
