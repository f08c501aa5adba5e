"""The validation split, and prepared files that are none."""

import os
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib.core import records
from lib.core.errors import TemporaryError, UserError
from lib.core.files import sha256
from lib.data import prepared, prepared_record


def good_tensors():
    return {
        "train_images": torch.zeros(6, 1, 28, 28, dtype=torch.uint8),
        "train_labels": torch.tensor([0, 1, 0, 1, 0, 1]),
        "test_images": torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
        "test_labels": torch.tensor([0, 1]),
        "mean": torch.tensor([0.5], dtype=torch.float64),
        "std": torch.tensor([0.5], dtype=torch.float64),
    }


def of_version_0_2():
    """The same, without channels."""
    gray = {name: each[:, 0] for name, each in good_tensors().items() if name.endswith("images")}
    half = torch.tensor(0.5, dtype=torch.float64)
    return good_tensors() | gray | {"mean": half, "std": half.clone()}


def load(tmp_path, tensors):
    path = tmp_path / "data.safetensors"
    save_file(tensors, path, metadata={"classes": '["a", "b"]'})
    return prepared.load(path)


@pytest.mark.parametrize("tensors", [good_tensors(), of_version_0_2()])
def test_a_good_file(tmp_path, tensors):
    dataset = load(tmp_path, tensors)
    assert dataset.classes == ["a", "b"]
    assert dataset.input_shape == (1, 28, 28)


def test_each_channel_is_normalized_by_its_own_mean(tmp_path):
    images = torch.randint(256, (6, 3, 28, 28), dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).double(), torch.tensor([0.2, 0.3, 0.4]).double()
    color = {"train_images": images, "test_images": images[:2].clone(), "mean": mean, "std": std}
    dataset = load(tmp_path, good_tensors() | color)
    assert dataset.input_shape == (3, 28, 28)
    found = dataset.train_and_validation(0)[0].batch(slice(None))
    for channel in range(3):
        one = [channel]
        gray = {"train_images": images[:, one], "mean": mean[one], "std": std[one]}
        alone = load(tmp_path, good_tensors() | gray).train_and_validation(0)[0].batch(slice(None))
        assert torch.equal(found[:, one], alone)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("train_images", torch.zeros(6, 784, dtype=torch.uint8), "train_images is .*expected"),
        ("train_images", torch.zeros(6, 28, 28), "numbers of F32"),
        ("train_images", torch.zeros(6, 1, 8, 8, dtype=torch.uint8), "differ in size"),
        ("train_images", torch.zeros(6, 3, 28, 28, dtype=torch.uint8), "differ in size"),
        ("train_labels", torch.tensor([0, 1]), "6 train images, 2 labels"),
        ("test_labels", torch.tensor([0, 2]), "test labels are not all among its 2 classes"),
        ("test_labels", torch.tensor([0, -1]), "test labels are not all among its 2 classes"),
        ("std", torch.tensor([[0.5]]).double(), "std is float64"),
        ("std", torch.tensor([0.5, 0.5]).double(), "mean and std are not of the 1 channels"),
        ("other", torch.zeros(1, dtype=torch.uint8), "it holds .*other"),
    ],
)
def test_another_shape(tmp_path, name, tensor, message):
    message = f"data.safetensors is not a prepared data set: .*{message}"
    with pytest.raises(UserError, match=message):
        load(tmp_path, good_tensors() | {name: tensor})


def identity(path, tensors, classes='["a", "b"]'):
    save_file(tensors, path, metadata={"classes": classes})
    return prepared_record.verified(path)


def test_the_identity_is_of_the_content_not_of_the_file(tmp_path):
    tensors = good_tensors()
    one = identity(tmp_path / "one", tensors)
    padded = {"classes": '["a", "b"]', "note": "a longer header"}
    save_file(tensors, tmp_path / "two", metadata=padded)
    other = prepared_record.verified(tmp_path / "two")
    assert other.sha256 == one.sha256
    assert one == identity(tmp_path / "old", of_version_0_2())
    assert one.names[1] == sha256(tmp_path / "old")  # as version 0.2 names it
    images, labels = tensors["test_images"].clone(), tensors["test_labels"]
    images[1, 0, 0, 0] = 1
    for changed in (
        {"test_images": images},
        {"test_images": images.flip(0)},
        {"test_labels": labels.flip(0)},
        {"mean": torch.tensor([0.4], dtype=torch.float64)},
        {"train_images": tensors["train_images"].reshape(6, 1, 14, 56)},
        {"train_images": tensors["train_images"].reshape(6, 7, 28, 4)},
    ):
        assert identity(tmp_path / "new", tensors | changed).sha256 != one.sha256
    assert identity(tmp_path / "new", tensors, '["a", "c"]').sha256 != one.sha256


def test_a_record_of_the_earlier_version_names_the_file(tmp_path):
    path = tmp_path / "data.safetensors"
    with_record = identity(path, of_version_0_2())
    content = {"dataset": "x", "content": {}, "size": path.stat().st_size}
    records.write(tmp_path / "data.prepared.json", content, [path])
    assert set(prepared_record.names_in_record(path)) == set(with_record.names)
    assert prepared_record.verified(path) == replace(with_record, dataset="x")
    path.unlink()
    assert prepared_record.names_in_record(path) == with_record.names[1:]


def written_with_its_record(folder):
    """Return a prepared file and its record, both a minute old."""
    path, record = folder / "data.safetensors", folder / "data.prepared.json"
    save_file(good_tensors(), path, metadata={"classes": '["a", "b"]'})
    size = path.stat().st_size
    records.write(record, {"dataset": "x", "content": {}, "size": size, "mtime_ns": 0}, [path])
    minute_ago = record.stat().st_mtime_ns - 60 * 10**9
    for each in (path, record):
        os.utime(each, ns=(minute_ago, minute_ago))
    return path, record


def test_a_file_is_read_once_for_its_digest(tmp_path, monkeypatch):
    path, record = written_with_its_record(tmp_path)
    written, read = record.stat().st_mtime_ns, []
    digest = prepared_record.sha256
    monkeypatch.setattr(prepared_record, "sha256", lambda path: read.append(path) or digest(path))
    for _ in range(2):
        assert prepared_record.verified(path).dataset == "x"
        assert prepared_record.damage(path) is None
    assert read == [path]
    assert record.stat().st_mtime_ns == written  # nothing is made again for it
    path.touch()  # as a copy has another time
    prepared_record.verified(path)
    prepared_record.verified(path)
    assert read == [path] * 2


def test_a_file_that_changes_after_it_was_read(tmp_path):
    path, _ = written_with_its_record(tmp_path)
    prepared_record.verified(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="truncated or corrupt: its digest"):
        prepared_record.verified(path)
    assert "truncated or corrupt" in prepared_record.damage(path)


def test_a_record_that_cannot_be_written_is_no_hindrance(tmp_path, monkeypatch):
    path, _ = written_with_its_record(tmp_path)

    @contextmanager
    def read_only(path):
        raise TemporaryError(f"cannot write {path}")
        yield

    monkeypatch.setattr(prepared_record, "atomic_path", read_only)
    assert prepared_record.verified(path).dataset == "x"


def test_a_truncated_file(tmp_path):
    load(tmp_path, good_tensors())
    path = tmp_path / "data.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"cannot read .*data.safetensors"):
        prepared.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none.safetensors"):
        prepared.load(tmp_path / "none.safetensors")


labels = st.lists(st.integers(0, 4), min_size=2, max_size=200).map(torch.tensor)


@given(labels=labels, fraction=st.floats(0, 0.999))
def test_the_validation_split_is_stratified(labels, fraction):
    size = int(fraction * len(labels))
    mask = prepared.stratified(labels, size)
    assert mask.sum() == size
    for label, count in enumerate(torch.bincount(labels)):
        chosen = int(mask[labels == label].sum())
        assert abs(chosen - float(count) * size / len(labels)) < 1
    assert torch.equal(mask, prepared.stratified(labels, size))


def test_the_validation_split_ignores_the_runs_seed(small_data):
    dataset = prepared.load(small_data)
    torch.manual_seed(1)
    training, validation = dataset.train_and_validation(500)
    torch.manual_seed(2)
    again = dataset.train_and_validation(500)
    assert (len(training), len(validation)) == (1500, 500)
    assert torch.equal(training.images, again[0].images)
    assert torch.equal(validation.labels, again[1].labels)


def test_all_images_cannot_be_held_out(tmp_path):
    with pytest.raises(UserError, match="validation_size 6: the training set has only 6 images"):
        load(tmp_path, good_tensors()).train_and_validation(6)
