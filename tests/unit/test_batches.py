"""The images of a split: in memory, in their file, or looked up, they are the same bits."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors import numpy as library
from torch.testing import assert_close

import models
from lib.core.errors import UserError
from lib.core.settings import Settings
from lib.data import prepared, tensor_file
from lib.data.batches import StoredImages
from lib.data.tensor_file import TensorFile
from lib.running.progress import Progress
from lib.training import loop
from lib.training.checkpoint import Checkpoints
from lib.training.recipe import TrainingLoss
from lib.training.state import seed_everything

SHAPE = (3, 4, 5)


def tensors():
    """Color images whose pixels have all values."""
    values = np.random.default_rng(0).integers(256, size=(60, *SHAPE), dtype=np.uint8)
    values[:5].reshape(-1)[:256] = np.arange(256)
    return {
        "train_images": values[:50],
        "train_labels": np.arange(50) % 3,
        "train_groups": np.arange(50) // 2,
        "test_images": values[50:],
        "test_labels": np.arange(10) % 3,
        "mean": np.array([0.5, 0.4, 0.3]),
        "std": np.array([0.2, 0.3, 0.37]),
    }


@pytest.fixture
def path(tmp_path):
    library.save_file(tensors(), tmp_path / "data.safetensors", {"classes": '["a", "b", "c"]'})
    return tmp_path / "data.safetensors"


@pytest.fixture
def both(path, monkeypatch):
    """The data set in memory, and in its file."""
    in_memory = prepared.load(path)
    monkeypatch.setattr(prepared, "MOST_IN_MEMORY", 0)
    return in_memory, prepared.load(path)


@pytest.mark.parametrize("validation_size", [0, 0.2])
def test_a_file_gives_the_bits_of_memory(both, validation_size):
    in_memory, in_file = (
        [*each.train_and_validation(validation_size), each.test_split()] for each in both
    )
    assert isinstance(in_memory[0].images, torch.Tensor)
    assert isinstance(in_file[0].images, StoredImages)
    for one, other in zip(in_memory, in_file, strict=True):
        if one is None:
            assert other is None
            continue
        order = torch.randperm(len(one))
        for which in (slice(None), slice(3, 7), slice(len(one) - 1, len(one) + 5), order[:6]):
            assert torch.equal(one.batch(which), other.batch(which))
        assert torch.equal(one.labels, other.labels)
        assert one.images.shape == other.images.shape
        assert torch.equal(one.images, other.images.to(torch.device("cpu")))


def test_a_table_gives_the_bits_of_the_arithmetic(both):
    for dataset in both:
        split = dataset.test_split()
        looked_up, computed = split.with_table().batch(slice(None)), split.batch(slice(None))
        assert torch.equal(looked_up, computed)
        assert looked_up.is_contiguous()
        values = torch.unique(dataset.train_and_validation(0)[0].images[:])
        assert len(values) == 256
        training = dataset.train_and_validation(0)[0]
        assert torch.equal(training.with_table().batch(slice(9)), training.batch(slice(9)))


def test_pixels_are_scaled_and_normalized(both):
    split, values = both[0].test_split(), tensors()
    wanted = (values["test_images"] / 255 - values["mean"].reshape(3, 1, 1)) / values[
        "std"
    ].reshape(3, 1, 1)
    assert_close(split.batch(slice(None)), torch.from_numpy(wanted).float())


def test_training_from_a_file_has_the_bits_of_memory(both, tmp_path):
    settings = Settings.of({"model": {"name": "MLP"}, "epochs": 2, "batch_size": 7})
    weights = []
    for number, dataset in enumerate(both):
        seed_everything(1)
        model = models.build({"name": "MLP"}, SHAPE, 3)
        checkpoints = Checkpoints(tmp_path / f"checkpoint{number}", {}, 60)
        splits = (*dataset.train_and_validation(0)[:1], dataset.test_split())
        loss = TrainingLoss("nll_loss", 3, splits[0].labels)
        progress = Progress(settings, *map(len, splits))
        loop.train(model, *splits, loss, settings, checkpoints, progress)
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)


def test_a_file_that_has_become_shorter(path):
    file = TensorFile(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"cannot read .*data.safetensors: it has become shorter"):
        file.read("train_images")


def test_what_is_written_is_what_the_library_writes(path, tmp_path):
    content, metadata = tensors(), {"note": "\u00e9\n"}  # of several, the library's order varies
    types = {name: each.dtype for name, each in content.items()}
    shapes = {name: (types[name], each.shape) for name, each in content.items()}
    order = tensor_file.in_order(types)
    parts = (part for name in order for part in np.array_split(content[name], 2))
    with (tmp_path / "new").open("wb") as file:
        file.writelines(tensor_file.content(shapes, metadata, parts))
    assert (tmp_path / "new").read_bytes() == library.save(content, metadata)
    read = TensorFile(tmp_path / "new")
    assert read.metadata == metadata
    for name, each in content.items():
        assert np.array_equal(read.read(name), each)
        assert np.array_equal(np.concatenate(list(read.parts(name))), each)
        assert np.array_equal(read.read(name, 2, 5), each[2:5])
    assert np.array_equal(read.rows("train_images", [7, 7, 0]), content["train_images"][[7, 7, 0]])


def write_large(path, images, shape=(3, 64, 64)):
    """Write a prepared file of so many images, of which a tenth are for testing."""
    generator, train, test = np.random.default_rng(0), images * 9 // 10, images // 10
    block = generator.integers(256, size=(2048, *shape), dtype=np.uint8)
    arrays = {
        "train_labels": generator.integers(10, size=train),
        "test_labels": generator.integers(10, size=test),
        "mean": np.full(3, 0.5),
        "std": np.full(3, 0.25),
    }
    sizes = {"train_images": train, "test_images": test}
    shapes = {name: (each.dtype, each.shape) for name, each in arrays.items()}
    shapes |= {name: (block.dtype, (size, *shape)) for name, size in sizes.items()}

    def parts():
        for name in tensor_file.in_order({name: dtype for name, (dtype, _) in shapes.items()}):
            if name in arrays:
                yield arrays[name]
            for first in range(0, sizes.get(name, 0), len(block)):
                yield block[: min(len(block), sizes[name] - first)]

    metadata = {"classes": json.dumps(list("0123456789"))}
    with path.open("wb") as file:
        file.writelines(tensor_file.content(shapes, metadata, parts()))


def peaks_of_a_run(data, run, *command):
    """Train on a prepared file and evaluate; return the peaks of the memory of both, in MB.

    Args:
        data: the file.
        run: the folder for the run.
        command: what starts the scripts.
    """
    train = ["scripts/train.py", "--data", data, "--output", run, "--set", "epochs=1"]
    train += ["model={name: MLP, hidden: 16}", "shuffle=true"]
    for script in (train, ["scripts/evaluate.py", "--data", data, "--run", run]):
        done = subprocess.run([*command, *script], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    records = (json.loads((run / name).read_text()) for name in ("run.json", "evaluation.json"))
    return [record["peak_memory_mb"] for record in records]


@pytest.mark.extended
def test_a_set_larger_than_memory(tmp_path):
    """3 GB are trained on, shuffled, in 512 MiB more than torch itself has."""
    small, large = tmp_path / "small.safetensors", tmp_path / "large.safetensors"
    write_large(small, 2_000)
    write_large(large, 262_144)
    assert large.stat().st_size > 3e9
    status = "import torch; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", status], capture_output=True, text=True)
    needed = int(re.search(r"VmData:\s+(\d+)", done.stdout)[1]) << 10
    limit = ("prlimit", f"--data={needed + (512 << 20)}", sys.executable)
    of_small = peaks_of_a_run(small, tmp_path / "one", sys.executable)
    of_large = peaks_of_a_run(large, tmp_path / "two", *limit)
    # Pages of a mapped file would count here, and not in the limit.
    assert all(after < before + 512 for before, after in zip(of_small, of_large, strict=True))
