"""Results that are kept across a change of the code that computes the same."""

import csv
import json
import re
import shutil

import pytest
from conftest import ROOT, SMALL_CONFIG, cases
from made_up import change_record

LOOP = "scripts/lib/training/loop.py"
# A function that is split in two, and its variables are called otherwise.
REFACTORED = (
    LOOP,
    """        batch_loss, reported = loss.of_batch(output.float(), labels, share)
        batch_loss.backward()
    return reported
""",
    """        mean, shown = loss.of_batch(output.float(), labels, share)
        with_gradients(mean)
    return shown


def with_gradients(mean):
    mean.backward()
""",
)
OLD = ROOT / "tests/data/finished-0.2.0"


def adopt(project, *options, config=SMALL_CONFIG, **more):
    return project.script("adopt", "--configfile", config, *options, **more)


def test_a_refactoring_is_proven_and_nothing_is_trained(finished):
    finished.edit(*REFACTORED)
    before = {path: path.read_bytes() for path in finished.run_folder("cnn").iterdir()}
    planned = finished.snakemake("-n").stdout
    assert "train cnn, seed 1 again: other code (lib/training/loop.py)" in planned
    assert "make adopt" in planned
    done = adopt(finished)
    assert "-        batch_loss.backward()" in done.stdout
    for name in ("mlp/seed1", "cnn/seed1"):
        assert f"adopted by replay of 50 steps of {name}: {name}" in done.stdout
    assert finished.planned() == {"report"}
    finished.snakemake()
    assert {path: path.read_bytes() for path in finished.run_folder("cnn").iterdir()} == before
    page = (finished.results / "report.html").read_text()
    assert "valid for later code by replay of 50 steps of cnn/seed1 (20" in page
    with (finished.results / "report.csv").open(newline="") as file:
        assert [row["warning"] for row in csv.DictReader(file)] == ["", ""]
    with (finished.results / "comparisons.csv").open(newline="") as file:
        assert "code" not in next(csv.DictReader(file))["warning"]
    assert "Nothing to adopt" in adopt(finished).stdout
    assert finished.planned() == set()
    # Back to the code that has trained it, for which it is valid, too, and to that of now.
    file, old, new = REFACTORED
    finished.edit(file, new, old)
    assert finished.planned() == set()
    finished.edit(*REFACTORED)
    assert finished.planned() == set()
    finished.script("evaluate", "--run", finished.run_folder("cnn"), "--data", finished.data)


@pytest.mark.extended
def test_code_that_prepares_the_same_data_may_have_changed_too(finished):
    """Then the data is made again, before the replays."""
    finished.edit(*REFACTORED)
    finished.edit("scripts/lib/data/catalog.py", "NO_CONTENT = (", 'NO_CONTENT = ("nothing", ')
    assert {"download", "prepare"} <= finished.planned()
    assert "adopted by replay of 50 steps of cnn/seed1: cnn/seed1" in adopt(finished).stdout
    assert not any(job.startswith("train") for job in finished.planned())


# What changes numbers, and what is said of it.
CHANGES = {
    "another initialization": (
        "scripts/models/mlp.py",
        "        self.fc2 = ",
        "        torch.rand(1)\n        self.fc2 = ",
        "step 1: the loss",
    ),
    "another eps of the optimizer": (
        "scripts/lib/training/recipe.py",
        'return _construct("optimizer", torch.optim, optimizer, parameters)',
        'return _construct("optimizer", torch.optim, optimizer | {"eps": 1e-5}, parameters)',
        "step 2: the loss",
    ),
    "another order": (
        LOOP,
        "    batches = epoch_batches(size, settings.batch_size, order)",
        "    batches = epoch_batches(size, settings.batch_size, order)[::-1]",
        "step 1: the loss",
    ),
    "other batches": (
        LOOP,
        "    batches = epoch_batches(size, settings.batch_size, order)",
        "    batches = epoch_batches(size, 63, order)",
        "the batches of the first epoch",
    ),
    "another use of random numbers": (
        LOOP,
        "    training.optimizer.zero_grad()",
        "    draw_seed()\n    training.optimizer.zero_grad()",
        "the random generators after step 50",
    ),
    "another rate, later": (
        "scripts/lib/training/recipe.py",
        '_construct("scheduler", schedulers, given, optimizer, **own)',
        '_construct("scheduler", schedulers, given | {"gamma": 0.6}, optimizer, **own)',
        "the learning rate of epoch 2",
    ),
    "another evaluation": (
        "scripts/lib/training/accuracy.py",
        '"precision": ',
        '"precision": 0.5 + ',
        "the accuracy table of the stored weights, row 1",
    ),
}


@pytest.mark.parametrize(
    ("file", "old", "new", "said"), cases(CHANGES, "another eps of the optimizer")
)
def test_what_changes_a_number_is_named(finished, file, old, new, said):
    finished.edit(file, old, new)
    options = ("--run", finished.run_folder("mlp"), "--data", finished.data)
    done = finished.script("replay", *options, check=False)
    assert done.returncode == 1
    assert said in done.stdout


def test_what_differs_is_not_adopted(finished):
    finished.edit(*CHANGES["another initialization"][:3])
    finished.edit("scripts/models/cnn.py", "self.fc2(", "1 * self.fc2(")
    done = adopt(finished, check=False)
    assert done.returncode == 1
    assert (
        "not adopted: mlp/seed1: the replay of mlp/seed1 differs: step 1: the loss" in done.stdout
    )
    assert "they are to be trained again" in done.stdout
    assert "adopted by replay of 50 steps of cnn/seed1" in done.stdout
    assert finished.planned() == {"train mlp 1", "evaluate mlp 1", "report"}


@pytest.mark.extended
def test_whole_trainings_are_replayed(finished):
    """Also that of a run that has not been evaluated since it was trained last."""
    change_record(finished.run_folder("mlp"), "evaluation.json", run_sha256="0")
    finished.edit(*REFACTORED)
    said = adopt(finished, "--whole").stdout
    for name in ("mlp/seed1", "cnn/seed1"):
        assert f"adopted by the whole training of {name}: {name}" in said
    assert finished.planned() == {"evaluate mlp 1", "report"}


@pytest.mark.extended
def test_on_another_machine_bits_cannot_be_compared(finished):
    """And it says so; with a reason, results are adopted without proof, which the report shows."""
    finished.edit(*CHANGES["another initialization"][:3])
    change_record(finished.run_folder("mlp"), "run.json", processor="Another One")
    said = adopt(finished, check=False).stdout
    assert "Bits cannot be compared here" in said
    assert "processor Another One, here" in said
    assert "make adopt PROFILE=profiles/slurm" in said
    assert adopt(finished, "--force", " ", check=False).returncode == 1
    done = adopt(finished, "--force", "seen by eye, trust me")
    assert "adopted without proof: mlp/seed1" in done.stdout
    assert "train mlp 1" not in finished.planned()
    finished.snakemake()
    with (finished.results / "report.csv").open(newline="") as file:
        warning = "not proven for the current code: seen by eye, trust me"
        assert [row["warning"] for row in csv.DictReader(file)] == [warning, ""]
    assert "without proof: seen by eye, trust me" in (finished.results / "report.html").read_text()


@pytest.mark.extended
def test_a_damaged_list_of_adoptions(finished):
    finished.edit(*REFACTORED)
    adopt(finished)
    path = finished.results / "adoptions.json"
    content = json.loads(path.read_text())
    content["adoptions"][0]["proof"] = "belief"
    path.write_text(json.dumps(content))
    done = finished.snakemake("-n", check=False)
    assert done.returncode == 1
    assert f"{path.relative_to(finished.folder)} was changed after it was written" in done.stdout
    assert "Traceback" not in done.stdout
    path.unlink()
    assert {"train mlp 1", "train cnn 1"} <= finished.planned()


def test_a_study_of_the_earlier_version(project):
    """Where its bits are computed, nothing of it is trained again, also without its data.

    After a change that plans a training for it, CHANGELOG.md must say why. Some processors round
    otherwise than the one that has trained it: there, all differ, by rounding alone.
    """
    shutil.copytree(OLD / "results/study", project.folder / "results/study")
    shutil.copytree(OLD / ".snakemake", project.folder / ".snakemake")
    shutil.copy(OLD / "linear.py", project.folder / "scripts/models")
    config = str((OLD / "study.yaml").relative_to(ROOT))
    assert "train mlp 1" in project.planned(config=config)
    done = adopt(project, config=config, check=False)
    runs = {n: f"{n}/seed1, {n}/seed2" for n in ("mlp", "linear", "searched_lr0.3", "searched_lr1")}
    if done.returncode:
        found = (
            r"not adopted: (.*?): the replay of .* was [\d.]+, (\S+)\. Bits cannot be compared here"
        )
        differences = dict(re.findall(found, done.stdout))
        assert set(differences) == set(runs.values()), done.stdout
        assert max(abs(float(each)) for each in differences.values()) < 1e-6
        done = adopt(project, "--force", "another processor", config=config)
        assert f"adopted without proof: {', '.join(runs.values())}" in done.stdout
    else:
        for name, each in runs.items():
            assert f"adopted by the whole training of {name}/seed1: {each}" in done.stdout
    assert not {job for job in project.planned(config=config) if "train" in job}
    project.snakemake(config=config)
    assert (project.folder / "results/study/report.html").exists()
    assert project.planned(config=config) == set()
