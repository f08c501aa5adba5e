"""The prepared data set: one safetensors file, of which a training takes its splits."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lib.core.errors import UserError
from lib.data.batches import Split, StoredImages
from lib.data.splits import held_out_size, whole_groups
from lib.data.tensor_file import TensorFile

# The validation split is the same for all runs, so its seed is not the run's.
VALIDATION_SEED = 0
# Images of more bytes are not kept in memory: each batch is read from the file.
MOST_IN_MEMORY = 256 << 20


@dataclass(frozen=True)
class Dataset:
    """The content of a prepared file, or of one of its folds: images uint8, labels int64 [N].

    Images are [N, channels, height, width], in memory or in the file. Mean and standard deviation,
    float64 [channels], are of pixels scaled to 0-1.
    """

    train_images: torch.Tensor | StoredImages
    train_labels: torch.Tensor
    test_images: torch.Tensor | StoredImages
    test_labels: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    classes: list[str]
    train_groups: torch.Tensor | None = None  # int64 [N], of training images that have groups

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.train_images.shape[1:])

    def split(self, name: str, images: torch.Tensor | StoredImages, labels: torch.Tensor) -> Split:
        """Return images and labels as a split, which normalizes them as all others."""
        mean, std = (each.to(torch.float32).reshape(-1, 1, 1) for each in (self.mean, self.std))
        return Split(name, images, labels, mean, std)

    def test_split(self) -> Split:
        """Return the test set."""
        return self.split("test", self.test_images, self.test_labels)

    def train_and_validation(self, validation_size: float) -> tuple[Split, Split | None]:
        """Return the training set without the images held out, and those (None where 0).

        Args:
            validation_size: how many images are held out, or which share of them, below 1. Where
                the images have groups, whole groups are, so that it may be some more or fewer.

        Raises:
            UserError: more images would be held out than the training set has to give.
        """
        training = self.split("training", self.train_images, self.train_labels)
        if not validation_size:
            return training, None
        size = held_out_size(validation_size, len(training))
        if self.train_groups is None:
            held_out = stratified(self.train_labels, size)
        else:
            held_out = grouped(self.train_labels, self.train_groups, size)
        return training.only(~held_out), replace(training.only(held_out), name="validation")


def stratified(labels: torch.Tensor, size: int) -> torch.Tensor:
    """Choose `size` images so that each class keeps its share, by a fixed seed.

    A class gets the whole part of its share; the images that are then missing go to the classes
    with the largest fractions (Hamilton's method), the lower label first where they are equal.

    Args:
        labels: int64 [N].
        size: images to choose, fewer than N.

    Returns:
        A mask, bool [N].

    Raises:
        UserError: `size` is not less than N.
    """
    total = len(labels)
    if size >= total:
        raise UserError(f"validation_size {size}: the training set has only {total} images")
    counts = torch.bincount(labels)
    quota = counts * size // total
    remainder = counts * size % total
    missing = size - int(quota.sum())
    quota[torch.argsort(remainder, descending=True, stable=True)[:missing]] += 1
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    mask = torch.zeros(total, dtype=torch.bool)
    for label, share in enumerate(quota.tolist()):
        members = torch.nonzero(labels == label).flatten()
        order = torch.randperm(len(members), generator=generator)
        mask[members[order[:share]]] = True
    return mask


def grouped(labels: torch.Tensor, groups: torch.Tensor, size: int) -> torch.Tensor:
    """Choose about `size` images in whole groups, so that each class keeps about its share.

    Args:
        labels: int64 [N].
        groups: of each image, int64 [N].
        size: images to choose.

    Returns:
        A mask, bool [N].

    Raises:
        UserError: that would be none, or all.
    """
    names = groups.unique()
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    order = names[torch.randperm(len(names), generator=generator)].tolist()
    wanted = torch.bincount(labels) * (size / len(labels))
    chosen = whole_groups(groups.tolist(), labels.tolist(), wanted.numpy(), order)
    if not 0 < len(chosen) < len(names):
        raise UserError(
            f"validation_size: about {size} of {len(labels)} training images are {len(chosen)} of "
            f"their {len(names)} groups"
        )
    return torch.isin(groups, torch.tensor(sorted(chosen)))


def load(path: Path, fold: int | None = None) -> Dataset:
    """Open a prepared data set and check that it is one; read its images, unless they are many.

    Args:
        path: of the file.
        fold: the number of that which is the test set, where the data has folds.

    Raises:
        UserError: the file is missing, corrupt, or holds something else, or has no such fold; the
            message names it.
    """
    file = TensorFile(path)
    try:
        classes = json.loads(file.metadata.get("classes", "[]"))
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    images = [name for name in file.shapes if name.endswith("images")]
    if problem := _problem_of_types(file):
        raise UserError(f"{path} is not a prepared data set: {problem}")
    _check_fold(file, fold)
    tensors = {
        name: StoredImages(file, name) if name in images else torch.from_numpy(file.read(name))
        for name in file.shapes
    }
    if fold is not None:
        tensors = _of_fold(tensors, fold)
        images = ["train_images", "test_images"]
    for name in ("mean", "std"):  # version 0.2 wrote one number
        tensors[name] = tensors[name].reshape(-1)
    if problem := _problem(tensors, classes):
        raise UserError(f"{path} is not a prepared data set: {problem}")
    if sum(tensors[name].nbytes for name in images) <= MOST_IN_MEMORY:
        tensors |= {name: tensors[name].to(torch.device("cpu")) for name in images}
    return Dataset(**tensors, classes=classes)


def _check_fold(file: TensorFile, fold: int | None) -> None:
    """Check that a file has folds where one is named, and that one.

    Raises:
        UserError: it is not so; the message names the file.
    """
    if fold is None and "fold" not in file.shapes:
        return
    if fold is None or "fold" not in file.shapes or fold > file.shapes["mean"][0]:
        has = f"{file.shapes['mean'][0]} folds" if "fold" in file.shapes else "no folds"
        named = "which is the test set is not said" if fold is None else f"not fold {fold}"
        raise UserError(f"fold: {file.path} has {has}: {named} (--set fold=NUMBER)")


def _of_fold(
    tensors: dict[str, torch.Tensor | StoredImages], fold: int
) -> dict[str, torch.Tensor | StoredImages]:
    """Return the tensors of a data set whose test set is a fold; the training set is the others."""
    test = tensors["fold"] == fold
    images, labels, groups = (tensors.get(name) for name in ("images", "labels", "groups"))
    found = {name: tensors[name][fold - 1] for name in ("mean", "std")}
    for split, mask in (("train", ~test), ("test", test)):
        found |= {f"{split}_images": images.only(mask), f"{split}_labels": labels[mask]}
    return found if groups is None else found | {"train_groups": groups[~test]}


def _problem_of_types(file: TensorFile) -> str | None:
    """Return what is wrong with types and dimensions of the tensors of a prepared file, or None."""
    expected = {
        "train_images": ("uint8", (3, 4)),  # version 0.2 wrote gray images without channels
        "train_labels": ("int64", (1,)),
        "test_images": ("uint8", (3, 4)),
        "test_labels": ("int64", (1,)),
        "mean": ("float64", (0, 1)),
        "std": ("float64", (0, 1)),
    }
    if "fold" in file.shapes:
        expected = {
            "images": ("uint8", (4,)),
            **dict.fromkeys(("labels", "fold"), ("int64", (1,))),
            **dict.fromkeys(("mean", "std"), ("float64", (2,))),
        }
    groups = "groups" if "fold" in file.shapes else "train_groups"
    if groups in file.shapes:
        expected[groups] = ("int64", (1,))
    if set(file.shapes) != set(expected):
        return f"it holds {sorted(file.shapes)} rather than {sorted(expected)}"
    for name, (dtype, dimensions) in expected.items():
        found, shape = file.dtypes[name], list(file.shapes[name])
        if found != dtype or len(shape) not in dimensions:
            wanted = f"{dtype} of {dimensions[-1]} dimensions"
            return f"{name} is {found} {shape}, expected {wanted}"
    return None


def _problem(tensors: dict[str, torch.Tensor | StoredImages], classes: list[str]) -> str | None:
    """Return what is wrong with the tensors of a prepared file, or None."""
    if tensors["train_images"].shape[1:] != tensors["test_images"].shape[1:]:
        return "training and test images differ in size"
    channels = tensors["train_images"].shape[1]
    if not len(tensors["mean"]) == len(tensors["std"]) == channels:
        return f"mean and std are not of the {channels} channels of its images"
    for split in ("train", "test"):
        images, labels = tensors[f"{split}_images"], tensors[f"{split}_labels"]
        if not len(images) or len(images) != len(labels):
            return f"{len(images)} {split} images, {len(labels)} labels"
        if labels.min() < 0 or labels.max() >= len(classes):
            return f"{split} labels are not all among its {len(classes)} classes"
    return None
