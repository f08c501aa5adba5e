"""Data that is divided into folds: each image is in one test set, and never in its training set."""

import csv
import gzip
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from scipy import stats

import prepare
from lib.core import seeds
from lib.core.errors import UserError
from lib.core.files import read_json
from lib.core.layout import Layout, audit_file, images_file
from lib.core.metric import ACCURACY, Metric
from lib.core.seeds import SeedAndFold
from lib.data import image_list, prepared, prepared_record, readers
from lib.data.facts import facts_of
from lib.data.splits import folds_of_groups, folds_of_images
from lib.data.survey import survey
from lib.reporting import figures, finished_runs, page, tables, uncertainty, verdict
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun
from lib.reporting.uncertainty import Folds, Measured, Term

CLASSES = {"cat": 13, "dog": 21, "owl": 7}


@pytest.fixture
def folder(tmp_path):
    """Random color images of three classes, of which some are of one animal, in their folders."""
    random = np.random.default_rng(0)
    for label, count in CLASSES.items():
        (tmp_path / "pets" / label).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(
                tmp_path / "pets" / label / f"{label}{index // 2}_{index}.png"
            )
    return tmp_path / "pets"


def make(folder, **more):
    """Prepare the images in folds, and return the file."""
    entry = {"folder": str(folder), "folds": 3} | more
    path = folder.parent / "data.safetensors"
    prepare.prepare(path, "pets", entry, readers.open_reader(entry), 2)
    return path


def rows_of(path):
    text = gzip.decompress(images_file(path).read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_seeds_and_folds_have_names():
    for seed, name in ((1, "seed1"), (SeedAndFold(12, 3), "seed12-fold3")):
        files = Layout(Path("results")).run("cnn", seed)
        assert (files.folder.name, files.seed, seeds.parse(str(seed))) == (name, seed, seed)
    for other in ("", "1-fold", "1-fold0", "a", "1-fold2-fold3", "-1", "1-fold2\n"):
        assert seeds.parse(other) is None
    assert seeds.in_folds([2, 1], 2) == [(2, 1), (2, 2), (1, 1), (1, 2)]
    assert seeds.in_folds([2, 1], None) == [2, 1]


def test_runs_with_and_without_folds_are_found(tmp_path):
    for name in ("seed2", "seed10-fold1", "seed2-fold1", "seedling", "seed2-fold1-old"):
        (tmp_path / "runs" / "cnn" / name).mkdir(parents=True)
    names = [("cnn", 2), ("cnn", SeedAndFold(2, 1)), ("cnn", SeedAndFold(10, 1))]
    assert Layout(tmp_path).runs() == names


def test_each_class_is_divided_equally():
    random = np.random.default_rng(1)
    labels = random.choice(4, 203, p=[0.6, 0.25, 0.1, 0.05])
    found = folds_of_images(labels.tolist(), 5, random.permutation(203).tolist())
    counts = np.array([np.bincount(labels[found == fold], minlength=4) for fold in range(1, 6)])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1
    assert counts.sum() == 203


def test_groups_stay_whole_and_classes_are_divided_nearly_equally():
    random = np.random.default_rng(2)
    groups = np.sort(random.integers(0, 60, 600))
    rare = np.isin(groups, random.permutation(60)[:10])
    labels = np.where(rare & (random.uniform(size=600) < 0.8), 1, 0)
    found = folds_of_groups(groups.tolist(), labels.tolist(), 5, random.permutation(60).tolist())
    assert all(len(set(found[groups == group])) == 1 for group in range(60))
    counts = np.array([np.bincount(labels[found == fold], minlength=2) for fold in range(1, 6)])
    expected = np.bincount(labels) / 5
    assert (np.abs(counts - expected) < 0.35 * expected).all(), counts


def test_the_division_does_not_depend_on_the_order_of_the_files(folder):
    entry = {"folder": str(folder), "folds": 3}
    reader = readers.open_reader(entry)
    found = survey(reader, entry)
    folds = dict(zip([item.name for item in found.items], found.folds, strict=True))
    reader.items = reader.items[::-1]
    again = survey(reader, entry)
    assert folds == dict(zip([item.name for item in again.items], again.folds, strict=True))


@pytest.mark.parametrize("group", [None, r"(\w+)_\d+\.png"])
def test_each_image_is_tested_once_and_never_trained_on_then(folder, group):
    path = make(folder, **({"group": group} if group else {}))
    rows = rows_of(path)
    assert {row["split"] for row in rows} == {"fold1", "fold2", "fold3"}
    everything = torch.from_numpy(prepared.TensorFile(path).read("images"))
    tested = []
    for fold in (1, 2, 3):
        own = [row["split"] == f"fold{fold}" for row in rows]
        dataset = prepared.load(path, fold)
        assert torch.equal(dataset.test_images, everything[own])
        assert torch.equal(dataset.train_images, everything[[not each for each in own]])
        names = image_list.names_of_test(path, fold)
        assert names == [row["file"] for row in rows if row["split"] == f"fold{fold}"]
        assert [int(row["index"]) for row in rows if row["split"] == f"fold{fold}"] == list(
            range(len(names))
        )
        labels = [dataset.classes[label] for label in dataset.test_labels]
        assert labels == [name.split("/")[0] for name in names]
        # Normalized by what it is trained on, and nothing else.
        pixels = dataset.train_images.numpy() / 255
        assert dataset.mean.numpy() == pytest.approx(pixels.mean(axis=(0, 2, 3)))
        assert dataset.std.numpy() == pytest.approx(pixels.std(axis=(0, 2, 3)))
        if group:
            of_fold, others = (
                {row["group"] for row in rows if (row["split"] == f"fold{fold}") == here}
                for here in (True, False)
            )
            assert not of_fold & others
        tested += names
    assert sorted(tested) == sorted(row["file"] for row in rows)


def test_validation_images_are_of_the_folds_that_are_trained_on(folder):
    path = make(folder)
    for fold in (1, 2, 3):
        dataset = prepared.load(path, fold)
        training, validation = dataset.train_and_validation(0.25)
        whole = torch.cat([training.images, validation.images]).flatten(1).numpy()
        expected = dataset.train_images.flatten(1).numpy()
        assert sorted(map(bytes, whole)) == sorted(map(bytes, expected))


def test_groups_of_a_fold_are_not_divided_by_validation(folder):
    path = make(folder, group=r"(\w+)_\d+\.png")
    dataset = prepared.load(path, 2)
    assert len(dataset.train_groups) == len(dataset.train_labels)
    training, validation = dataset.train_and_validation(0.3)
    assert len(training) + len(validation) == len(dataset.train_labels)


def test_what_is_known_before_a_run(folder):
    entry = {"folder": str(folder), "folds": 3}
    path = folder.parent / "data.safetensors"
    before = facts_of(path, entry)
    make(folder)
    assert read_json(path.with_suffix(".prepared.json"))["facts"] == vars(before)
    assert facts_of(path, entry) == before
    assert (before.train_size, before.test_size, before.folds) == (27, 14, [14, 14, 13])
    assert before.sizes == [(28, 13), (27, 14)]
    assert prepared_record.is_of(path, entry)
    assert not prepared_record.is_of(path, entry | {"folds": 4})


def test_the_audit_counts_by_fold(folder):
    audit = read_json(audit_file(make(folder)))
    assert audit["lines"][0] == (
        "41 images of 3 classes in 3 folds; 51.2% of them are of the largest class, dog"
    )
    assert audit["lines"][1] == "in each fold: cat 4 to 5, dog 7 to 7, owl 2 to 3"
    assert list(audit["classes"]) == ["fold1", "fold2", "fold3"]
    for label, count in CLASSES.items():
        assert sum(each[label] for each in audit["classes"].values()) == count
    assert any("ordered by class" in line or "class by class" in line for line in audit["lines"])


def test_copies_in_two_folds_are_an_error_or_left_out(folder):
    rows = {row["file"]: row["split"] for row in rows_of(make(folder))}
    first, *others = rows
    same = next(name for name in others if rows[name] == rows[first])
    other, third = [name for name in others if rows[name] != rows[first]][:2]
    for name in (other, third, same):
        (folder / name).write_bytes((folder / first).read_bytes())
    with pytest.raises(UserError, match="duplicates: 2 images are in another fold, too") as error:
        make(folder)
    assert other in str(error.value) or third in str(error.value)
    path = make(folder, duplicates="keep")
    assert len(rows_of(path)) == 41
    assert (
        "2 images are in another fold, too: they were kept" in read_json(audit_file(path))["lines"]
    )
    path = make(folder, duplicates="drop")
    kept = [row["file"] for row in rows_of(path)]
    assert len(kept) == 39
    assert first in kept
    lines = read_json(audit_file(path))["lines"]
    assert "2 images are in another fold, too: 2 of them were left out" in lines
    assert "1 images of a fold are copies of others of them" in lines


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"test_share": 0.2}, "folds: each image is for testing in one of them: remove test_share"),
        ({"folds": 42}, "folds: 42 is more than the 41 images"),
        ({"folds": 30, "group": r"(\w+)_\d+\.png"}, "folds: 30 is more than the 22 groups"),
    ],
)
def test_folds_that_cannot_be(folder, more, said):
    with pytest.raises(UserError, match=said):
        make(folder, **more)


def test_a_class_of_one_image_cannot_be_learned_where_it_is_tested(folder):
    (folder / "emu").mkdir()
    (folder / "cat" / "cat0_0.png").rename(folder / "emu" / "emu0_0.png")
    with pytest.raises(
        UserError, match=r"folds: all images of 'emu', 1, are in fold\d: the networks"
    ):
        make(folder)


def test_a_fold_of_which_all_images_are_copies_is_an_error(folder):
    path = make(folder)
    rows = rows_of(path)
    first = next(row["file"] for row in rows if row["split"] != "fold3")
    for row in rows:
        if row["split"] == "fold3":
            (folder / row["file"]).write_bytes((folder / first).read_bytes())
    with pytest.raises(UserError, match="folds: no image is left in fold3"):
        make(folder, duplicates="drop")


def test_a_class_that_some_folds_do_not_test_is_noted(folder):
    (folder / "emu").mkdir()
    for name in ("cat0_0.png", "cat0_1.png"):
        (folder / "cat" / name).rename(folder / "emu" / name)
    lines = read_json(audit_file(make(folder)))["lines"]
    assert sum(line.startswith("no image of emu is in fold") for line in lines) == 1


def test_a_fixed_split_has_no_folds(folder):
    for split in ("train", "test"):
        (folder.parent / "split" / split).mkdir(parents=True)
        for label in CLASSES:
            target = folder.parent / "split" / split / label
            target.symlink_to(folder / label, target_is_directory=True)
    with pytest.raises(UserError, match="folds: the data says itself which images are for testing"):
        make(folder.parent / "split")
    for entry in ({"torchvision": "CIFAR10"}, {"files": {}, "train_size": 1, "test_size": 1}):
        with pytest.raises(UserError, match="folds: the data says itself"):
            facts_of(folder / "none.safetensors", entry | {"folds": 5})


@pytest.mark.parametrize(
    ("fold", "said"),
    [(None, "has 3 folds: which is the test set is not said"), (4, "has 3 folds: not fold 4")],
)
def test_a_fold_has_to_be_one_of_the_data(folder, fold, said):
    with pytest.raises(UserError, match=said):
        prepared.load(make(folder), fold)


def test_data_without_folds_has_no_fold(small_data):
    with pytest.raises(UserError, match="has no folds: not fold 1"):
        prepared.load(small_data, 1)


# ---- intervals and tests


def test_the_overlap_of_trainings_is_corrected():
    """Nadeau and Bengio's t, written out for ten trainings on nine tenths."""
    values = np.random.default_rng(3).normal(0.02, 0.05, 10)
    folds = Folds(values, 1 / 9)
    found = Measured(values.mean(keepdims=True), np.zeros(1000), None, folds).mean()
    t = values.mean() / (values.std(ddof=1) * np.sqrt(1 / 10 + 1 / 9))
    assert found.p_value() == pytest.approx(2 * stats.t.sf(abs(t) / uncertainty.CAUTION, 9))


def test_folds_that_are_equal_by_chance_are_not_certain():
    images = Term(0.01, 500)
    assert uncertainty.fold_term(Folds(np.full(5, 0.3), 0.25), images) == Term(0.01, 4)
    wider = uncertainty.fold_term(Folds(np.array([0.1, 0.9, 0.2, 0.8, 0.5]), 0.25), images)
    assert wider.variance > images.variance


def networks(name, folds, labels, seeds_of, random):
    """Return an experiment of random networks, one for each seed and fold."""
    test_set = finished_runs.TestSet(None, (), None, labels, ["a", "b"], 1, None, None, None, folds)
    runs = []
    for seed in seeds_of:
        for fold in np.unique(folds).tolist():
            own = np.flatnonzero(folds == fold)
            right = random.uniform(size=len(own)) < 0.5 + 0.1 * fold
            chosen = np.where(right, labels[own], 1 - labels[own])
            sure = random.uniform(0.5, 1, len(own)).astype(np.float32)
            about = (labels[own], chosen, sure, test_set, None, None, fold)
            record = {"train_size": len(labels) - len(own)}
            runs.append(FinishedRun(name, seed, "", record, {}, None, *about))
    return FinishedExperiment(name, runs)


@pytest.fixture
def both():
    random = np.random.default_rng(4)
    labels, folds = random.integers(0, 2, 90), np.repeat([1, 2, 3], [20, 30, 40])
    folds = random.permutation(folds)
    return [networks(name, folds, labels, (1, 2, 3), random) for name in "ab"]


def test_a_metric_is_the_mean_over_folds(both):
    experiment = both[0]
    values = np.array([run.accuracy for run in experiment.runs])
    pseudo = [(run.prediction == run.labels).astype(float) for run in experiment.runs]
    found = finished_runs.in_folds(experiment.runs, values, pseudo)
    by_seed = values.reshape(3, 3)
    assert found.runs == pytest.approx(by_seed.mean(axis=1))
    assert found.folds.values == pytest.approx(by_seed.mean(axis=0))
    assert found.folds.ratio == pytest.approx(np.mean([20 / 70, 30 / 60, 40 / 50]))
    assert found.images.mean() == pytest.approx(values.mean())
    # Over the images, the variance is that of a mean of three independent means.
    own = [experiment.right[:, run.images].mean(axis=0) for run in experiment.runs[:3]]
    expected = sum(each.var() / len(each) for each in own) / 9
    assert uncertainty.image_term(found.images).variance == pytest.approx(expected, rel=0.02)


def test_what_a_seed_says_is_put_together(both):
    experiment = both[0]
    assert experiment.seeds == [1, 2, 3]
    assert experiment.right.shape == (3, 90)
    shares = [run.accuracy for run in experiment.runs]
    sizes = [len(run.images) for run in experiment.runs]
    assert experiment.right.mean() == pytest.approx(np.average(shares, weights=sizes))


@pytest.mark.parametrize("seeds_of", [(1,), (1, 2), (1, 2, 3)])
def test_one_seed_in_folds_is_compared(seeds_of):
    random = np.random.default_rng(5)
    labels, folds = random.integers(0, 2, 90), random.permutation(np.repeat([1, 2, 3], 30))
    a, b = (networks(name, folds, labels, seeds_of, random) for name in "ab")
    known = {}
    for each in (a, b):
        values = np.array([run.accuracy for run in each.runs])
        pseudo = [(run.prediction == run.labels).astype(float) for run in each.runs]
        known[each.name] = finished_runs.in_folds(each.runs, values, pseudo)
    found = tables.difference(ACCURACY, a, b, known)
    assert 0 < found.p_value() <= 1
    # Of fewer than three seeds, the spread is not known.
    assert bool(found.seeds.variance) == (len(seeds_of) == 3)


def test_with_unequal_seeds_their_spread_is_not_known():
    random = np.random.default_rng(6)
    labels, folds = random.integers(0, 2, 90), random.permutation(np.repeat([1, 2, 3], 30))
    a, b = (networks(n, folds, labels, some, random) for n, some in (("a", [1]), ("b", [1, 2, 3])))
    assert tables.method(a, b) == "corrected t, folds"
    assert tables.method(b, b) == "corrected t, seeds and folds"
    folds = [Folds(np.array(each), 0.5) for each in ([0.4, 0.5, 0.6], [0.5, 0.7, 0.6])]
    one = Measured(np.array([0.5]), np.zeros(90), None, folds[0])
    three = Measured(np.array([0.4, 0.5, 0.9]), np.zeros(90), None, folds[1])
    assert not uncertainty.difference(one, three, same_seeds=False).seeds.variance
    assert uncertainty.difference(three, three, same_seeds=False).seeds.variance


def test_an_image_has_a_number_in_its_fold():
    folds = np.array([2, 1, 2, 1, 2])
    test_set = finished_runs.TestSet(None, (), None, folds, ["a"], None, folds=folds)
    assert [test_set.place(n) for n in (1, 3, 4)] == ["fold 1, 0", "fold 1, 1", "fold 2, 2"]


def test_other_settings_of_a_seed_are_noted_in_a_search_too(both):
    experiment = replace(both[0], searched=True)
    settings = [{"epochs": run.fold, "seed": run.seed, "fold": run.fold} for run in experiment.runs]
    for run, each in zip(experiment.runs, settings, strict=True):
        run.record.update({"settings": each, "versions": {}, "gpu": None, "device": "cpu"})
        run.record.update({"git_dirty": False, "code": {}})
        run.evaluation.update({"versions": {}, "git_dirty": False, "code": {}})
    assert not tables.warnings([experiment])
    assert tables.warnings([replace(experiment, searched=False)])
    settings[4]["epochs"] = 9
    assert tables.warnings([experiment]) == ["the runs of a have different settings"]


def test_a_fold_without_a_class_has_no_curve_and_a_note(tmp_path):
    labels, folds = np.array([0, 1, 0, 1, 0, 0]), np.array([1, 1, 2, 2, 3, 3])
    test_set = finished_runs.TestSet(None, (), None, labels, ["a", "b"], 1, folds=folds)
    notes = page.metric_notes(test_set)
    assert notes[1:] == [
        "There are no test images of b in some of the folds: means over classes are without them."
    ]
    runs = []
    for fold in (1, 2, 3):
        own, path = labels[folds == fold], tmp_path / f"{fold}.safetensors"
        save_file({"probabilities": np.full((2, 2), 0.5, np.float32)}, path)
        sure = np.full(2, 0.5, np.float32)
        runs.append(
            FinishedRun("x", 1, "", {}, {}, None, own, own, sure, test_set, path, None, fold)
        )
    assert [run.scores["auroc"] for run in runs] == [0.5, 0.5, None]
    experiments = [FinishedExperiment("x", runs), FinishedExperiment("y", runs[:2])]
    assert figures.curves(experiments).alt.endswith("x: no AUROC, y: AUROC 0.500.")
    assert finished_runs.measured(Metric("auroc"), runs) is None


def row(**more):
    return {"experiment": "cnn", "runs": 15, "folds": 5, "missing": ""} | more


def test_the_verdict_says_how_many_folds_and_seeds():
    assert verdict._about(row(), [], "") == "mean of 5 folds, 3 seeds each"
    assert verdict._about(row(runs=5), [], "") == "mean of 5 folds, one seed each"
    assert verdict._what({"runs_a": 15, "runs_b": 15, "folds": "5"}) == "5 folds, 3 seeds each"
    assert verdict._what({"runs_a": 5, "runs_b": 15, "folds": 5}) == "5 folds, 1 and 3 seeds each"


def test_a_seed_of_which_a_fold_is_missing_is_left_out(both):
    experiment = both[0]
    gone = experiment.runs.pop(4)
    experiment.missing[SeedAndFold(gone.seed, gone.fold)] = "not trained"
    with pytest.raises(UserError, match="a, seed 2: only 2 of its 3 folds are among the runs"):
        finished_runs.leave_out_parts(experiment, 3, incomplete=False)
    finished_runs.leave_out_parts(experiment, 3, incomplete=True)
    assert experiment.seeds == [1, 3]
    assert list(experiment.missing) == [(2, 1), (2, 2), (2, 3)]
    assert experiment.missing[SeedAndFold(2, 2)] == "not trained"
    assert "other folds" in experiment.missing[SeedAndFold(2, 1)]


def test_settings_that_differ_by_fold_are_all_shown():
    settings = [{"a": 1, "model": {"name": "MLP", "hidden": size}} for size in (8, 16, 8)]
    found = finished_runs.common(settings)
    assert found == {"a": 1, "model": {"name": "MLP", "hidden": "8 / 16"}}
