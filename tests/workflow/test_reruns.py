"""What runs again after a change, and what does not."""

import pytest
from conftest import ROOT, cases, untouched
from made_up import change_record

from lib.core.code_digests import files_of

STAGES = ("download", "prepare", "train", "evaluate", "report")
MLP = {"train mlp 1", "evaluate mlp 1"}
CNN = {"train cnn 1", "evaluate cnn 1"}
EVALUATIONS = {"evaluate mlp 1", "evaluate cnn 1"}


def test_nothing_after_a_complete_run(finished):
    assert finished.planned() == set()


def test_touched_scripts_run_nothing(finished):
    for path in (finished.folder / "scripts").rglob("*.py"):
        path.touch()
    assert finished.planned() == set()


# The stages whose code a file is. What follows a stage that runs again runs again, too.
CODE_OF = {
    "report.py": {"report"},
    "evaluate.py": {"evaluate"},
    "train.py": {"train"},
    "lib/training/loop.py": {"train", "evaluate"},
    "lib/training/recipe.py": {"train", "evaluate"},
    "lib/reporting/page.py": {"report"},
    "lib/training/accuracy.py": {"evaluate"},
    "prepare.py": {"prepare"},
    "download.py": {"download"},
    "lib/data/sources.py": {"download"},
    "lib/study/config.py": set(),
    "lib/cluster/executor.py": set(),
}
EDITS = {
    "a model": ("scripts/models/cnn.py", CNN | {"report"}),
    "the page's template": ("workflow/report/page.html.j2", {"report"}),
    "the submission to Slurm": ("scripts/lib/cluster/executor.py", set()),
    "the lease on a run": ("scripts/lib/running/lease.py", set()),
    "the command line of the training": ("scripts/train.py", set()),
    "the loss": ("scripts/lib/training/recipe.py", MLP | CNN | {"report"}),
    "the order of the images": ("scripts/lib/training/loop.py", MLP | CNN | {"report"}),
    "a layer": ("scripts/models/layers.py", MLP | CNN | {"report"}),
    "the counting": ("scripts/lib/training/accuracy.py", EVALUATIONS | {"report"}),
}


@pytest.mark.parametrize("file", CODE_OF)
def test_whose_code_a_file_is(file):
    scripts = ROOT / "scripts"
    stages = [stage for stage in STAGES if scripts / file in files_of(scripts / f"{stage}.py")]
    assert set(stages) == CODE_OF[file]


@pytest.mark.parametrize(("file", "jobs"), EDITS.values(), ids=EDITS.keys())
def test_after_editing(finished, file, jobs):
    with (finished.folder / file).open("a") as script:
        script.write("EDITED = True\n")
    assert finished.planned() == jobs


def test_what_means_the_same_runs_nothing_again(finished):
    with (finished.folder / "scripts/models/mlp.py").open("a") as model:
        model.write("# edited\n")
    finished.edit("scripts/lib/running/lease.py", "The right to write", "The permit to write")
    finished.edit("scripts/lib/training/loop.py", "shuffle: bool", "shuffle: int")
    finished.edit("scripts/report.py", '"""Write the tables', '"""Write all tables')
    finished.edit("scripts/lib/cluster/usage.py", "recorded_job", "job_of_record")
    finished.edit("README.md", "# slurm-classifiers", "# Another name")
    (finished.folder / "scripts" / "new.py").write_text("print('a new command')\n")
    assert finished.planned() == set()


def test_other_versions_are_said_and_count_where_they_are_to(finished):
    assert "trained with other versions" not in finished.snakemake("-n").stdout
    versions = finished.record("mlp")["versions"]
    change_record(finished.run_folder("mlp"), "run.json", versions=versions | {"torch": "1.0"})
    planned = finished.snakemake("-n").stdout
    said = f"trained with other versions: 1 with torch 1.0, here {versions['torch']}; 1 with those"
    assert said in planned
    assert finished.planned() == {"evaluate mlp 1", "report"}
    assert "train mlp 1" in finished.planned("--config", "versions=strict")
    finished.snakemake("--config", "versions=strict")
    assert finished.record("mlp")["versions"] == versions


def test_after_changing_an_experiment(finished):
    finished.edit("tests/data/config.yaml", "{name: CNN},", "{name: CNN}, epochs: 3,")
    assert finished.planned() == CNN | {"report"}


def test_after_changing_resources_only(finished):
    finished.edit("tests/data/config.yaml", "mem_mb: 1536, runtime: 20", "mem_mb: 2560, runtime: 9")
    assert finished.planned() == set()


@pytest.mark.extended
def test_after_moving_the_data(finished):
    finished.edit("tests/data/config.yaml", "mirrors: [tests/data]", "mirrors: []")
    assert finished.planned("--config", "data_dir=elsewhere") == set()


@pytest.mark.extended
def test_after_adding_a_data_set(finished):
    path = finished.folder / "tests/data/datasets.yaml"
    path.write_text(path.read_text() + path.read_text().replace("MNIST-small", "Mine"))
    assert finished.planned() == set()


@pytest.mark.extended
def test_after_another_digest(finished):
    finished.edit("tests/data/datasets.yaml", "832c0d20", "00000000")
    assert finished.planned() == {"download", "prepare", "report"} | MLP | CNN


def test_two_changes_at_once(finished):
    """A job that runs again for one reason does not hide the other's."""
    with (finished.folder / "scripts/models/mlp.py").open("a") as script:
        script.write("EDITED = True\n")
    finished.edit("tests/data/config.yaml", "{name: CNN},", "{name: CNN}, epochs: 3,")
    assert finished.planned() == MLP | CNN | {"report"}


DELETED = {
    "model.safetensors": MLP | {"report"},
    "history.csv": MLP | {"report"},
    "predictions.csv.gz": {"evaluate mlp 1", "report"},
}


@pytest.mark.parametrize(
    ("file", "jobs"),
    cases({file: (file, jobs) for file, jobs in DELETED.items()}, "model.safetensors"),
)
def test_after_deleting_a_file_of_a_run(finished, file, jobs):
    (finished.run_folder("mlp") / file).unlink()
    assert finished.planned() == jobs


def test_deleted_weights_come_back_the_same(finished):
    path = finished.run_folder("mlp") / "model.safetensors"
    before, other = path.read_bytes(), untouched(finished.run_folder("cnn"))
    report = (finished.results / "report.csv").read_text().splitlines()
    path.unlink()
    finished.snakemake()
    assert path.read_bytes() == before
    assert untouched(finished.run_folder("cnn")) == other
    again = (finished.results / "report.csv").read_text().splitlines()
    assert again[2] == report[2]  # the CNN's row
    assert again[1].split(",")[:11] == report[1].split(",")[:11]
    assert finished.planned() == set()


def test_a_new_seed_keeps_the_trained_ones(finished):
    assert finished.planned("--config", "seeds=[1,2]") == {
        "train mlp 2", "train cnn 2", "evaluate mlp 2", "evaluate cnn 2", "report",
    }  # fmt: skip


@pytest.mark.extended
def test_the_raw_files_are_not_needed_again(finished):
    for path in (finished.results / "data" / "MNIST-small" / "raw").iterdir():
        path.unlink()
    assert finished.planned() == set()


@pytest.mark.extended
def test_forcing_everything_keeps_intact_data(finished):
    raw = finished.results / "data" / "MNIST-small" / "raw"
    before = untouched(raw)
    finished.snakemake("--forcerun", "download", "--until", "download")
    assert untouched(raw) == before


NEW_MODEL = """
import torch
from torch import nn


class Linear(nn.Module):
    output = "logits"

    def __init__(self, image_size, num_classes, bias=True):
        super().__init__()
        self.fc = nn.Linear(image_size[0] * image_size[1], num_classes, bias=bias)

    def forward(self, images):
        return self.fc(torch.flatten(images, 1))
"""


def test_adding_a_model_is_one_file_and_one_entry(finished):
    (finished.folder / "scripts/models/linear.py").write_text(NEW_MODEL)
    config = finished.folder / "tests/data/config.yaml"
    entry = "  line: {model: {name: Linear, bias: false}, loss: cross_entropy}\n"
    config.write_text(config.read_text() + entry)
    assert finished.planned() == {"train line 1", "evaluate line 1", "report"}
    before = untouched(finished.run_folder("cnn"))
    finished.snakemake()
    assert untouched(finished.run_folder("cnn")) == before
    assert finished.record("line")["parameters"] == 7840
    last = (finished.results / "report.csv").read_text().splitlines()[-1]
    assert last.startswith("line,Linear,1,0.8")


@pytest.mark.extended
def test_a_new_model_file_retrains_nothing(finished):
    (finished.folder / "scripts/models/linear.py").write_text(NEW_MODEL)
    assert finished.planned() == set()


@pytest.mark.extended
@pytest.mark.parametrize(
    "imports",
    [
        ("import torch\n", "\nfrom . import helper\n"),
        ('[N, classes]."""\n', "        from models.helper import SIZE  # noqa\n"),
    ],
    ids=["at the top", "when it is called"],
)
def test_an_edited_helper_of_a_model_retrains_that_model(finished, imports):
    """What a model imports of the project's own files counts, by whatever kind of import."""
    (finished.folder / "scripts/models/helper.py").write_text("SIZE = 64\n")
    place, statement = imports
    finished.edit("scripts/models/mlp.py", place, place + statement)
    finished.snakemake("results/small/report.csv")
    with (finished.folder / "scripts/models/helper.py").open("a") as helper:
        helper.write("EDITED = True\n")
    assert finished.planned() == MLP | {"report"}
