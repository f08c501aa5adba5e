"""The validation split, and prepared files that are none."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib.core import records
from lib.core.errors import UserError
from lib.core.files import sha256
from lib.data import prepared, prepared_record


def good_tensors():
    return {
        "train_images": torch.zeros(6, 28, 28, dtype=torch.uint8),
        "train_labels": torch.tensor([0, 1, 0, 1, 0, 1]),
        "test_images": torch.zeros(2, 28, 28, dtype=torch.uint8),
        "test_labels": torch.tensor([0, 1]),
        "mean": torch.tensor(0.5, dtype=torch.float64),
        "std": torch.tensor(0.5, dtype=torch.float64),
    }


def load(tmp_path, tensors):
    path = tmp_path / "data.safetensors"
    save_file(tensors, path, metadata={"classes": '["a", "b"]'})
    return prepared.load(path)


def test_a_good_file(tmp_path):
    assert load(tmp_path, good_tensors()).classes == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("train_images", torch.zeros(6, 784, dtype=torch.uint8), "train_images is .*expected"),
        ("train_images", torch.zeros(6, 28, 28), "train_images is torch.float32"),
        ("train_images", torch.zeros(6, 8, 8, dtype=torch.uint8), "differ in size"),
        ("train_labels", torch.tensor([0, 1]), "6 train images, 2 labels"),
        ("test_labels", torch.tensor([0, 2]), "test labels are not all among its 2 classes"),
        ("test_labels", torch.tensor([0, -1]), "test labels are not all among its 2 classes"),
        ("std", torch.tensor([0.5], dtype=torch.float64), "std is"),
        ("other", torch.zeros(1), "it holds .*other"),
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
    assert other.file_sha256 != one.file_sha256
    assert one.file_sha256 == sha256(tmp_path / "one")  # as version 0.2 names it
    images, labels = tensors["test_images"].clone(), tensors["test_labels"]
    images[1, 0, 0] = 1
    for changed in (
        {"test_images": images},
        {"test_images": images.flip(0)},
        {"test_labels": labels.flip(0)},
        {"mean": torch.tensor(0.4, dtype=torch.float64)},
        {"train_images": tensors["train_images"].reshape(6, 14, 56)},
    ):
        assert identity(tmp_path / "new", tensors | changed).sha256 != one.sha256
    assert identity(tmp_path / "new", tensors, '["a", "c"]').sha256 != one.sha256


def test_a_record_of_the_earlier_version_names_the_file(tmp_path):
    path = tmp_path / "data.safetensors"
    with_record = identity(path, good_tensors())
    content = {"dataset": "x", "content": {}, "size": path.stat().st_size}
    records.write(tmp_path / "data.prepared.json", content, [path])
    assert set(prepared_record.names_in_record(path)) == set(with_record.names)
    assert prepared_record.verified(path) == replace(with_record, dataset="x")
    path.unlink()
    assert prepared_record.names_in_record(path) == (with_record.file_sha256,)


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
