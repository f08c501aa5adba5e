"""Color images of one's own on Slurm: a search in packed jobs has the bytes of a local one."""

import pytest
from color_images import ENTRY, SEARCH, write_color_images
from slurm_project import SlurmProject, scenes

RUNS = [(name, seed) for name in ("plain", "searched") for seed in (1, 2)]
FILES = ("model.safetensors", "predictions.csv.gz", "accuracy.csv")


def write_study(project):
    write_color_images(project.folder / "colors")
    (project.folder / "mine.yaml").write_text(ENTRY)
    (project.folder / "slurm.yaml").write_text(SEARCH)


def searched_in_color(project: SlurmProject):
    write_study(project)
    project.hand_over()
    project.slurm_run()


pytestmark = [pytest.mark.extended, scenes(searched_in_color)]


def test_the_results_are_those_of_a_run_without_slurm(stage, project):
    study, _ = stage(searched_in_color)
    write_study(project)
    project.snakemake(config="slurm.yaml")
    for run in RUNS:
        for name in FILES:
            ours, others = (each.run_folder(*run) / name for each in (study, project))
            assert ours.read_bytes() == others.read_bytes(), (run, name)
        assert study.record(*run)["slurm"]
