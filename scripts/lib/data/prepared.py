"""The prepared data set: one safetensors file, in memory as one tensor per split."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lib.core.errors import UserError
from lib.data.splits import held_out_size, whole_groups

# The validation split is the same for all runs, so its seed is not the run's.
VALIDATION_SEED = 0


@dataclass(frozen=True)
class Split:
    """Images float32 [N, channels, height, width], normalized, and labels int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor
    name: str  # training, validation or test

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device."""
        return Split(self.images.to(device), self.labels.to(device), self.name)


@dataclass(frozen=True)
class Dataset:
    """The content of a prepared file: raw images uint8, labels int64 [N].

    Images are [N, channels, height, width]. Mean and standard deviation, float64 [channels], are of
    pixels scaled to 0-1.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    classes: list[str]
    train_groups: torch.Tensor | None = None  # int64 [N], of training images that have groups

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.train_images.shape[1:])

    def normalized(self, images: torch.Tensor, labels: torch.Tensor, name: str) -> Split:
        """Scale pixels to 0-1 and normalize them, with the bits that torchvision gives.

        ToTensor divides a float32 by 255; Normalize then subtracts and divides by float32
        constants. Doing so for the whole set at once rounds every pixel the same.
        """
        mean, std = (each.to(torch.float32).reshape(-1, 1, 1) for each in (self.mean, self.std))
        return Split(images.to(torch.float32).div_(255).sub_(mean).div_(std), labels, name)

    def test_split(self) -> Split:
        """Return the test set, normalized."""
        return self.normalized(self.test_images, self.test_labels, "test")

    def train_and_validation(self, validation_size: float) -> tuple[Split, Split | None]:
        """Return the training set without the images held out, and those (None where 0).

        Args:
            validation_size: how many images are held out, or which share of them, below 1. Where
                the images have groups, whole groups are, so that it may be some more or fewer.

        Raises:
            UserError: more images would be held out than the training set has to give.
        """
        if not validation_size:
            return self.normalized(self.train_images, self.train_labels, "training"), None
        size = held_out_size(validation_size, len(self.train_labels))
        if self.train_groups is None:
            held_out = stratified(self.train_labels, size)
        else:
            held_out = grouped(self.train_labels, self.train_groups, size)
        return (
            self.normalized(self.train_images[~held_out], self.train_labels[~held_out], "training"),
            self.normalized(self.train_images[held_out], self.train_labels[held_out], "validation"),
        )


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


def load(path: Path) -> Dataset:
    """Read a prepared data set and check that it is one.

    Raises:
        UserError: the file is missing, corrupt, or holds something else; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            classes = json.loads((file.metadata() or {}).get("classes", "[]"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    tensors = {name: _with_channels(name, tensor) for name, tensor in tensors.items()}
    problem = _problem(tensors, classes)
    if problem:
        raise UserError(f"{path} is not a prepared data set: {problem}")
    return Dataset(**tensors, classes=classes)


def _with_channels(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as it is written now. Version 0.2 wrote gray images without channels."""
    if name.endswith("_images") and tensor.dim() == 3:
        return tensor.unsqueeze(1)
    return tensor.reshape(-1) if name in ("mean", "std") else tensor


def _problem(tensors: dict[str, torch.Tensor], classes: list[str]) -> str | None:
    """Return what is wrong with the tensors of a prepared file, or None."""
    expected = {
        "train_images": (torch.uint8, 4),
        "train_labels": (torch.int64, 1),
        "test_images": (torch.uint8, 4),
        "test_labels": (torch.int64, 1),
        "mean": (torch.float64, 1),
        "std": (torch.float64, 1),
    }
    if "train_groups" in tensors:
        expected["train_groups"] = (torch.int64, 1)
    if set(tensors) != set(expected):
        return f"it holds {sorted(tensors)} rather than {sorted(expected)}"
    for name, (dtype, dimensions) in expected.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tensor.dim() != dimensions:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            return f"{name} is {found}, expected {dtype} of {dimensions} dimensions"
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
