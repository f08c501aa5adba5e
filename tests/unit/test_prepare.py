"""From IDX files to one file of tensors."""

import gzip
import json
import struct
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import prepare
from lib.core import strict_yaml
from lib.core.errors import UserError
from lib.core.files import read_json, sha256
from lib.data import catalog, prepared, readers

DATA = ROOT / "tests" / "data"


@pytest.fixture
def raw(tmp_path):
    """The raw files of the small data set, and a function that lists them as download.py does."""
    entry = strict_yaml.load(DATA / "datasets.yaml")["MNIST-small"]
    paths = {}
    for role, file in entry["files"].items():
        paths[role] = tmp_path / file["name"]
        paths[role].write_bytes(gzip.decompress((DATA / f"{file['name']}.gz").read_bytes()))

    def listed():
        listing = tmp_path / "files.json"
        files = {
            role: {"path": str(path), "source": "here", "sha256": sha256(path)}
            for role, path in paths.items()
        }
        listing.write_text(json.dumps({"dataset": "MNIST-small", "files": files}))
        return listing

    return entry, paths, listed


def read(listing, entry):
    files = read_json(listing)["files"].items()
    reader = readers.open_reader(entry, {role: each | {"listing": listing} for role, each in files})
    path = listing.with_name("data.safetensors")
    prepare.prepare(path, "data", entry, reader, 2)
    return load_file(path)


def test_the_prepared_file(small_data):
    dataset = prepared.load(small_data)
    assert dataset.train_images.shape == (2000, 1, 28, 28)
    assert dataset.train_images.dtype == torch.uint8
    assert dataset.test_labels.shape == (1000,)
    assert dataset.test_labels.dtype == torch.int64
    assert dataset.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert (dataset.mean.tolist(), dataset.std.tolist()) == ([0.1307], [0.3081])
    assert dataset.classes == list("0123456789")


def test_normalized_pixels_have_torchvisions_bits(small_data):
    from torchvision import transforms

    dataset = prepared.load(small_data)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    expected = torch.stack([transform(image.numpy()) for image in dataset.test_images[:, 0]])
    assert torch.equal(dataset.test_split().batch(slice(None)), expected)


def test_mean_and_standard_deviation_are_computed_where_not_given(raw):
    entry, _, listed = raw
    entry = {key: value for key, value in entry.items() if key not in ("mean", "std")}
    tensors = read(listed(), entry)
    pixels = tensors["train_images"].double().numpy() / 255
    assert tensors["mean"].item() == pytest.approx(pixels.mean(), rel=1e-12)
    assert tensors["std"].item() == pytest.approx(pixels.std(), rel=1e-12)


def test_a_missing_raw_file(raw):
    entry, paths, listed = raw
    listing = listed()
    paths["test_labels"].unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte is missing; remove .*files.json"):
        read(listing, entry)


def test_a_raw_file_that_has_changed(raw):
    entry, paths, listed = raw
    listing = listed()
    content = bytearray(paths["train_images"].read_bytes())
    content[5000] ^= 1
    paths["train_images"].write_bytes(content)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte has changed"):
        read(listing, entry)


def test_the_listing_is_truncated(raw):
    entry, _, listed = raw
    listing = listed()
    listing.write_text(listing.read_text()[:100])
    with pytest.raises(UserError, match=r"files.json is not valid JSON"):
        read(listing, entry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_size": 60000}, r"train-images.*\[2000, 28, 28\], expected \[60000, 28, 28\]"),
        ({"test_size": 999}, r"t10k-images.*\[1000, 28, 28\], expected \[999, 28, 28\]"),
        ({"image_size": [32, 32]}, r"expected \[2000, 32, 32\]"),
        ({"classes": list("012345678")}, r"train-labels.*labels from 0 to 9, but there are 9"),
    ],
)
def test_content_that_is_not_the_entrys(raw, change, message):
    entry, _, listed = raw
    with pytest.raises(UserError, match=message):
        read(listed(), entry | change)


def test_fewer_labels_than_images(raw):
    entry, paths, listed = raw
    paths["train_labels"].write_bytes(struct.pack(">2I", 0x801, 5) + bytes(5))
    with pytest.raises(UserError, match=r"train-labels.*shape \[5\], expected \[2000\]"):
        read(listed(), entry)


def test_a_file_that_is_no_idx_file(raw):
    entry, paths, listed = raw
    paths["train_images"].write_text("<html>")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is not an IDX file of images"):
        read(listed(), entry)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ["all", "one"]}, "classes.0"),
        ({"mean": 0.1}, "'std' is a dependency"),
        ({"npm": "./evil@1.0"}, "npm: './evil@1.0' is not valid"),
        ({"train_sise": 1}, "'train_sise'.*did you mean 'train_size'"),
        ({"files": {}}, "files: 'train_images' is a required property"),
    ],
)
def test_an_entry_that_is_wrong(tmp_path, wrong, message):
    entry = strict_yaml.load(DATA / "datasets.yaml")["MNIST-small"]
    entry = {key: value for key, value in entry.items() if key not in ("mean", "std")} | wrong
    path = tmp_path / "datasets.yaml"
    path.write_text(json.dumps({"MNIST-small": entry}))
    with pytest.raises(UserError, match=message):
        catalog.load(path, "MNIST-small")


@pytest.mark.extended
def test_a_full_disk_leaves_no_partial_file(tmp_path, raw):
    import shutil

    if not shutil.which("prlimit"):
        pytest.skip("needs prlimit")
    _, _, listed = raw
    output = tmp_path / "out" / "MNIST-small.safetensors"
    command = ["prlimit", "--fsize=100000", sys.executable, "scripts/prepare.py"]
    command += ["--dataset", "MNIST-small", "--datasets-file", DATA / "datasets.yaml"]
    command += ["--files", listed(), "--output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"error: cannot write {output.with_suffix('.decoded')}" in done.stderr
    assert not output.exists()
    subprocess.run(command[2:], cwd=ROOT, check=True)
    assert len(list(output.parent.iterdir())) == 4
