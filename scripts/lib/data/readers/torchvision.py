"""Well-known sets, by their names in `torchvision.datasets`, as their authors publish them.

What is downloaded holds no Python objects, which can run code: of CIFAR, it is the version for
other languages. Images and their order are those of torchvision, but for EMNIST, whose images lie
on their side there, and are upright here. They have no names.
"""

import bz2
import gzip
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.core.errors import UserError
from lib.data.readers import Item, downloaded
from lib.data.readers.files import idx_array

DIGITS = list("0123456789")
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
""".split()
UPPER, LOWER = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), list("abcdefghijklmnopqrstuvwxyz")
# Where EMNIST merges letters, these look alike in both cases.
MERGED = [*DIGITS, *UPPER, *"abdefghnqrt"]
# Classes, training images, test images. The labels of `letters` begin with 1.
EMNIST = {
    "byclass": ([*DIGITS, *UPPER, *LOWER], 697_932, 116_323),
    "bymerge": (MERGED, 697_932, 116_323),
    "balanced": (MERGED, 112_800, 18_800),
    "letters": (LOWER, 124_800, 20_800),
    "digits": (DIGITS, 240_000, 40_000),
    "mnist": (DIGITS, 60_000, 10_000),
}
MOST_BYTES = 1 << 30  # of a file that is downloaded

Arrays = tuple[np.ndarray, np.ndarray]  # images [N, height, width(, 3)] and labels [N]


@dataclass(frozen=True)
class Set:
    """A set.

    Attributes:
        url: the folder on the web of its files.
        files: by what is in them (`train`, `test`, or `all`), name and MD5.
        read: returns the images and labels of the training or the test set.
        about: its classes in the order of their labels, training images, and test images.
        input_shape: of its images.
    """

    url: str
    files: dict[str, tuple[str, str]]
    read: Callable[[dict[str, Path], str, dict], Arrays]
    about: tuple[list[str], int, int]
    input_shape: tuple[int, int, int] = (3, 32, 32)


def cifar(paths: dict[str, Path], split: str, label_bytes: int) -> Arrays:
    """Read CIFAR: of each image the labels, of which the last is the finest, and three planes.

    The format: https://www.cs.toronto.edu/~kriz/cifar.html, the binary version.
    """
    parts = []
    with tarfile.open(paths["all"]) as archive:
        for member in sorted(archive.getmembers(), key=lambda each: each.name):
            file = Path(member.name).name
            if file.endswith(".bin") and file.startswith("test") == (split == "test"):
                parts.append(np.frombuffer(archive.extractfile(member).read(), np.uint8))
    rows = np.concatenate(parts).reshape(-1, label_bytes + 3 * 32 * 32)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    return images.transpose(0, 2, 3, 1), rows[:, label_bytes - 1]


def svhn(paths: dict[str, Path], split: str, entry: dict) -> Arrays:
    """Read SVHN: X [32, 32, 3, N], y [N, 1], where 10 is the digit 0."""
    from scipy.io import loadmat

    content = loadmat(paths[split])
    return content["X"].transpose(3, 0, 1, 2), content["y"].flatten() % 10


def emnist(paths: dict[str, Path], split: str, entry: dict) -> Arrays:
    """Read a version of EMNIST: compressed IDX files, with rows and columns exchanged."""
    version = version_of(entry)
    with zipfile.ZipFile(paths["all"]) as archive:
        images, labels = (
            idx_array(
                gzip.decompress(archive.read(f"gzip/emnist-{version}-{split}-{kind}-ubyte.gz"))
            )
            for kind in ("images-idx3", "labels-idx1")
        )
    return images.transpose(0, 2, 1), labels - (version == "letters")


def usps(paths: dict[str, Path], split: str, entry: dict) -> Arrays:
    """Read USPS: lines of a label from 1, and 256 numbers from -1 to 1, as `index:value`."""
    with bz2.open(paths[split], "rt", encoding="ascii") as file:
        rows = [line.replace(":", " ").split() for line in file]
    values = np.array(rows, dtype=np.float64)
    pixels = ((values[:, 2::2] + 1) / 2 * 255).astype(np.uint8)
    return pixels.reshape(-1, 16, 16), values[:, 0].astype(np.int64) - 1


def version_of(entry: dict) -> str:
    """Return which version of EMNIST an entry means."""
    return entry.get("split", "balanced")


SETS = {
    "CIFAR10": Set(
        "https://www.cs.toronto.edu/~kriz",
        {"all": ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")},
        lambda paths, split, entry: cifar(paths, split, 1),
        (CIFAR10, 50_000, 10_000),
    ),
    "CIFAR100": Set(
        "https://www.cs.toronto.edu/~kriz",
        {"all": ("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")},
        lambda paths, split, entry: cifar(paths, split, 2),
        (CIFAR100, 50_000, 10_000),
    ),
    "SVHN": Set(
        "http://ufldl.stanford.edu/housenumbers",
        {
            "train": ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            "test": ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        },
        svhn,
        (DIGITS, 73_257, 26_032),
    ),
    "EMNIST": Set(
        "https://biometrics.nist.gov/cs_links/EMNIST",
        {"all": ("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e")},
        emnist,
        EMNIST["balanced"],
        (1, 28, 28),
    ),
    "USPS": Set(
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass",
        {
            "train": ("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
            "test": ("usps.t.bz2", "8ea070ee2aca1ac39742fdd1ef5ed118"),
        },
        usps,
        (DIGITS, 7_291, 2_007),
        (1, 16, 16),
    ),
}
SCHEMA = {"torchvision": {"enum": list(SETS)}, "split": {"enum": list(EMNIST)}}


def about(entry: dict) -> tuple[list[str], int, int]:
    """Return the classes of a set, its training images, and its test images.

    Raises:
        UserError: the entry names a version of a set that has none.
    """
    name = entry["torchvision"]
    if "split" in entry and name != "EMNIST":
        raise UserError(f"split: only EMNIST has several versions, not {name}")
    return EMNIST[version_of(entry)] if name == "EMNIST" else SETS[name].about


def facts(entry: dict) -> dict:
    """Return what is known of a set that may be not downloaded yet: see `Facts`.

    The sizes are those of the whole set, also where `classes` leaves something out.
    """
    classes, train_size, test_size = about(entry)
    channels, *image_size = SETS[entry["torchvision"]].input_shape
    return {
        "classes": list(entry.get("classes", classes)),
        "train_size": train_size,
        "test_size": test_size,
        "input_shape": [entry.get("channels", channels), *entry.get("image_size", image_size)],
    }


def downloads(entry: dict) -> dict[str, dict]:
    """Return the files of a set, as the listing of `download.py` has them, and their most bytes."""
    files = SETS[entry["torchvision"]].files.items()
    return {role: {"name": name, "md5": md5, "size": MOST_BYTES} for role, (name, md5) in files}


def mirrors(entry: dict) -> Iterator[str]:
    """Yield where they are on the web."""
    yield SETS[entry["torchvision"]].url


class Reader:
    """Reads the archives of a set."""

    lists = False

    def __init__(self, entry: dict, files: dict[str, dict]):
        self.watched, self.notes, self.items, self.images = {}, [], [], {}
        known, (self.classes, *_) = SETS[entry["torchvision"]], about(entry)
        paths = {role: downloaded(files[role]) for role in known.files}
        for split in ("train", "test"):
            try:
                self.images[split], labels = known.read(paths, split, entry)
            except Exception as error:  # of nearly any type where a file is not what it should be
                raise UserError(
                    f"torchvision: cannot read {', '.join(map(str, paths.values()))}: {error}"
                ) from error
            self.items += [
                Item("", self.classes[label], split, None, (split, index))
                for index, label in enumerate(labels.tolist())
            ]

    def read(self, item: Item) -> np.ndarray:
        """Return the pixels of an image."""
        split, index = item.source
        return self.images[split][index]
