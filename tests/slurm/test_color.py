"""Color images of one's own on Slurm: a search in packed jobs has the bytes of a local one."""

import os

import pytest
from color_images import ENTRY, SEARCH, write_color_images
from slurm_project import SlurmProject, scenes

from lib.core.seeds import SeedAndFold

RUNS = [(name, seed) for name in ("plain", "searched") for seed in (1, 2)]
IN_FOLDS = [(name, SeedAndFold(seed, fold)) for name, seed in RUNS for fold in (1, 2, 3)]
FILES = ("model.safetensors", "predictions.csv.gz", "accuracy.csv")


# A job prepares the data, and each copies it to the disk of its node.
ON_SLURM = "prepare: {cpus: 2, mem_mb: 1000, runtime: 10}\nstage: true\n"


def write_study(project, more="", entry=ENTRY):
    write_color_images(project.folder / "colors")
    (project.folder / "mine.yaml").write_text(entry)
    (project.folder / "slurm.yaml").write_text(SEARCH + more)


def searched_in_color(project: SlurmProject, entry=ENTRY):
    write_study(project, ON_SLURM, entry)
    disk = project.folder / "disk of the node"
    disk.mkdir()
    project.hand_over()
    project.slurm_run(env=os.environ | {"TMPDIR": str(disk)})


FOLDS = "mine:\n  folder: colors\n  folds: 3\n"


def searched_in_folds(project: SlurmProject):
    searched_in_color(project, FOLDS)


pytestmark = [pytest.mark.extended, scenes(searched_in_color, searched_in_folds)]


@pytest.mark.parametrize(
    ("scene", "entry", "runs"),
    [(searched_in_color, ENTRY, RUNS), (searched_in_folds, FOLDS, IN_FOLDS)],
    ids=["one test set", "folds"],
)
def test_the_results_are_those_of_a_run_without_slurm(stage, project, scene, entry, runs):
    study, _ = stage(scene)
    write_study(project, entry=entry)
    project.snakemake(config="slurm.yaml")
    for run in runs:
        for name in FILES:
            ours, others = (each.run_folder(*run) / name for each in (study, project))
            assert ours.read_bytes() == others.read_bytes(), (run, name)
        assert study.record(*run)["slurm"]


def test_the_data_is_prepared_and_copied_by_jobs(stage):
    study, _ = stage(searched_in_color)
    logs = study.results / "logs"
    assert "prepare" in (logs / "slurm" / "jobs.csv").read_text()
    assert study.record(*RUNS[0])["data"] == "results/small/data/mine.safetensors"
    said = [path.read_text() for path in study.results.glob("**/*.log")]
    assert any("was copied to" in text for text in said)
    assert not list((study.folder / "disk of the node").glob("staged-*"))
