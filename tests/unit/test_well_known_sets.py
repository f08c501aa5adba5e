"""The archives of well-known sets, here small ones of the same make: downloaded, checked, read."""

import bz2
import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, in_process
from safetensors.numpy import load_file
from scipy.io import savemat

import download
import prepare
from lib.core import strict_yaml
from lib.data import catalog, facts
from lib.data.readers import torchvision as sets

RANDOM = np.random.default_rng(0)


def pixels(count, *shape):
    return RANDOM.integers(256, size=(count, *shape), dtype=np.uint8)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def labels(count, classes):
    return np.arange(count)[::-1] % classes


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def cifar(path, images, known, coarse=False):
    """Write five files of training images, in the order of their names, and one of test images."""
    with tarfile.open(path, "w:gz") as archive:
        parts = np.array_split(np.arange(len(images["train"])), 1 if coarse else 5)
        members = [("train", f"data_batch_{n}.bin", part) for n, part in enumerate(parts, 1)]
        members += [("test", "test_batch.bin", np.arange(len(images["test"])))]
        for split, name, part in reversed(members):
            if coarse:
                name = f"{split}.bin"
            rows = [np.zeros((len(part), 1))] if coarse else []
            rows += [
                known[split][part, None],
                images[split][part].transpose(0, 3, 1, 2).reshape(len(part), -1),
            ]
            content = np.concatenate(rows, axis=1).astype(np.uint8).tobytes()
            about = tarfile.TarInfo(f"cifar/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
        archive.addfile(tarfile.TarInfo("cifar/readme.html"))


def write(folder, name, images, known):
    """Write the files of a set."""
    names = {role: folder / file for role, (file, _) in sets.SETS[name].files.items()}
    if name.startswith("CIFAR"):
        cifar(names["all"], images, known, coarse=name == "CIFAR100")
    elif name == "SVHN":
        for split in images:
            y = np.where(known[split] == 0, 10, known[split])[:, None]
            savemat(names[split], {"X": images[split].transpose(1, 2, 3, 0), "y": y})
    elif name == "EMNIST":
        with zipfile.ZipFile(names["all"], "w") as archive:
            for split in images:
                place = f"gzip/emnist-letters-{split}"
                lying = images[split].transpose(0, 2, 1)
                archive.writestr(f"{place}-images-idx3-ubyte.gz", gzip.compress(idx(lying)))
                archive.writestr(
                    f"{place}-labels-idx1-ubyte.gz", gzip.compress(idx(known[split] + 1))
                )
    else:
        for split in images:
            lines = []
            for image, label in zip(images[split].reshape(-1, 256), known[split], strict=True):
                values = (f"{n}:{value / 127.5 - 1:.6f}" for n, value in enumerate(image, 1))
                lines.append(f"{label + 1} {' '.join(values)} \n")
            names[split].write_bytes(bz2.compress("".join(lines).encode()))


@pytest.fixture(params=["CIFAR10", "CIFAR100", "SVHN", "EMNIST", "USPS"])
def small(request, tmp_path, monkeypatch):
    """A set, made small: its entry, images, and labels, with its files in a folder `mirror`."""
    name = request.param
    known = sets.SETS[name]
    channels, *size = known.input_shape
    entry = {"torchvision": name} | ({"split": "letters"} if name == "EMNIST" else {})
    classes = sets.about(entry)[0]
    counts = {"train": len(classes) + 20, "test": len(classes)}
    images = {
        split: pixels(n, *size, *([3] if channels == 3 else [])) for split, n in counts.items()
    }
    by_split = {split: labels(n, len(classes)) for split, n in counts.items()}
    (tmp_path / "mirror").mkdir()
    write(tmp_path / "mirror", name, images, by_split)
    digests = {
        role: (file, md5((tmp_path / "mirror" / file).read_bytes()))
        for role, (file, _) in known.files.items()
    }
    monkeypatch.setitem(sets.SETS, name, replace(known, files=digests))
    (tmp_path / "datasets.yaml").write_text(json.dumps({"small": entry}))
    monkeypatch.chdir(ROOT)
    return entry, images, by_split


def downloaded(folder):
    named = ("--dataset", "small", "--datasets-file", folder / "datasets.yaml")
    return named, in_process(
        download,
        *named,
        *("--data-dir", folder / "data", "--output", folder / "files.json"),
        *("--mirrors", folder / "mirror", "--timeout", "1"),
    )


def test_they_are_downloaded_and_prepared(small, tmp_path):
    entry, images, by_split = small
    named, done = downloaded(tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "small.safetensors"
    done = in_process(prepare, *named, "--files", tmp_path / "files.json", "--output", out)
    assert done.returncode == 0, done.stderr
    tensors, known = load_file(out), facts.facts_of(out, entry)
    assert known.classes == sets.about(entry)[0]
    assert known.input_shape == list(sets.SETS[entry["torchvision"]].input_shape)
    for split in images:
        assert np.array_equal(tensors[f"{split}_labels"], by_split[split])
        made = tensors[f"{split}_images"].transpose(0, 2, 3, 1).astype(int)
        difference = np.abs(made - images[split].reshape(made.shape)).max()
        assert difference <= (entry["torchvision"] == "USPS")  # which has rounded numbers
    again = downloaded(tmp_path)[1]
    assert "all files are there and intact" in again.stderr


def test_a_damaged_archive_is_refused(small, tmp_path):
    for path in (tmp_path / "mirror").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    _, done = downloaded(tmp_path)
    assert done.returncode == 1
    assert "not the right file" in done.stderr
    assert "cannot get" in done.stderr
    assert not (tmp_path / "files.json").exists()


def test_a_damaged_file_is_downloaded_again(small, tmp_path):
    downloaded(tmp_path)
    for path in (tmp_path / "data" / "small" / "raw").glob("[a-z]*"):
        path.write_bytes(path.read_bytes()[:-1])
    _, done = downloaded(tmp_path)
    assert done.returncode == 0
    assert "digest correct" in done.stderr


def test_what_is_inside_may_be_of_another_make(small, tmp_path, monkeypatch):
    entry, *_ = small
    known = sets.SETS[entry["torchvision"]]
    for file, _ in known.files.values():
        (tmp_path / "mirror" / file).write_bytes(b"something else")
    digest = md5(b"something else")
    changed = {role: (file, digest) for role, (file, _) in known.files.items()}
    monkeypatch.setitem(sets.SETS, entry["torchvision"], replace(known, files=changed))
    named, done = downloaded(tmp_path)
    assert done.returncode == 0
    out = tmp_path / "small.safetensors"
    done = in_process(prepare, *named, "--files", tmp_path / "files.json", "--output", out)
    assert done.returncode == 1
    assert "small: torchvision: cannot read" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_known_before_the_download(tmp_path):
    for name in sets.SETS:
        entry = catalog.load(ROOT / "config/datasets.yaml", name)
        known = facts.facts_of(tmp_path / "none.safetensors", entry)
        assert known.train_size > known.test_size > 2000
        assert len(known.classes) == len(set(known.classes)) >= 10
    resized = facts.facts_of(
        tmp_path / "x", {"torchvision": "SVHN", "image_size": [8, 9], "channels": 1}
    )
    assert resized.input_shape == [1, 8, 9]


def test_classes_and_digests_are_those_of_torchvision():
    from torchvision import datasets

    for version, (classes, *_) in sets.EMNIST.items():
        theirs = datasets.EMNIST.classes_split_dict[version]
        assert classes == [each for each in theirs if each != "N/A"]
    known = {
        name: [digest for _, digest in each.files.values()] for name, each in sets.SETS.items()
    }
    assert known["EMNIST"] == [datasets.EMNIST.md5]
    for name in ("SVHN", "USPS"):
        theirs = getattr(datasets, name).split_list
        assert known[name] == [theirs[split][2] for split in ("train", "test")]
        for split in ("train", "test"):
            assert theirs[split][0] == f"{sets.SETS[name].url}/{sets.SETS[name].files[split][0]}"
    assert datasets.EMNIST.url == f"{sets.SETS['EMNIST'].url}/gzip.zip"
    for name in ("CIFAR10", "CIFAR100"):
        assert getattr(datasets, name).url.startswith(sets.SETS[name].url)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"torchvision": "CIFAR11"}, "torchvision: 'CIFAR11' is not"),
        ({"torchvision": "CIFAR10", "split": "letters"}, "split: only EMNIST has several versions"),
        ({"torchvision": "EMNIST", "split": "upper"}, "split: 'upper' is not"),
        ({"torchvision": "CIFAR10", "folder": "x"}, "it has folder and torchvision"),
    ],
)
def test_wrong_entries(tmp_path, entry, said):
    path = tmp_path / "datasets.yaml"
    path.write_text(json.dumps({"small": entry}))
    with pytest.raises(strict_yaml.UserError, match=said):
        facts.facts_of(tmp_path / "x", catalog.load(path, "small"))
