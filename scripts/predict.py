"""Classify image files with a trained run.

    python scripts/predict.py --model results/runs/cnn/seed1 digit.png
    python scripts/predict.py --model results/runs/cnn/seed1 --csv new.csv photos/

Files, folders with all images in them, and patterns such as 'photos/*.jpg' can be named. Each image
is brought into the form of those that the run was trained on, in the same way: the size, the
channels, what is transparent or turned. Nothing else is changed, and every image gets an answer,
whatever it shows.

Runs on MNIST (data sets with `framing: mnist`) are for drawings of one character. A drawing may
have any size, in color or gray, dark on light or light on dark, with nothing else on it. It is
brought into the frame of MNIST's images as MNIST was made: gray levels, scaled into a box of 20 x
20 pixels with its proportions kept, and placed in 28 x 28 pixels so that its center of mass is in
the middle (Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits).

--show draws what the network sees. The answers are on standard output, all else is on standard
error. The exit status is 1 if an image could not be classified.
"""

import csv
import glob
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lib.core.command_line as command_line  # first, for Ctrl-C

import numpy as np
import torch
from PIL import Image

import models
from lib.core.errors import UserError
from lib.core.files import atomic_path
from lib.core.layout import RunFiles
from lib.core.run_state import read_trained
from lib.core.settings import Settings
from lib.data.batches import normalized
from lib.data.decoding import decoded
from lib.data.drawings import framed_file
from lib.data.pixels import Form
from lib.data.readers import raise_problems
from lib.data.readers.folder import image_files, natural
from lib.training import device as devices
from lib.training.metrics import probabilities
from lib.training.state import seed_everything
from lib.training.weights import load_weights

DIGITS = list("0123456789")
MOST_CLASSES = 10  # in the answer for one image
DRAWN = 224  # pixels of the longer side of an image that --show draws, at least nearly
COLUMNS = 10  # images per row of --show
MOST_DRAWN = 1000


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="image files, folders, or patterns")
    add("--model", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write a table: file, prediction, confidence, and a column for each class "
        "(default: print a few lines for each image)",
    )
    add(
        "--show",
        type=Path,
        metavar="FILE",
        help="a PNG file to draw what the network sees (default: none)",
    )
    add(
        "--device",
        choices=["cpu", "cuda", "auto"],
        default="cpu",
        help="where to compute (default: %(default)s)",
    )
    args = parser.parse_args()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # damaged files are reported here
    paths = files_of(args.images)
    check_outputs(args.csv, args.show, paths)

    network = Network(args.model, devices.choose(args.device))
    say(f"{args.model} {network.trained_on}")
    seen, count = [], 0
    with output(args.csv, network.classes) as write:
        for batch, images, sure in network.answers(paths):
            write(batch, sure)
            count += len(batch)
            seen += list(images) if args.show and len(seen) < MOST_DRAWN else []
    if args.csv:
        say(f"{count:,} images were classified: {args.csv}")
    if seen:
        save_picture(args.show, np.stack(seen[:MOST_DRAWN]))
        say(f"what the network saw is in {args.show}")
    sys.stdout.flush()
    sys.exit(0 if count == len(paths) else 1)


def say(text: str) -> None:
    """Print what is not an answer."""
    print(text, file=sys.stderr)


def files_of(names: list[str]) -> list[Path]:
    """Return the files that are named, those of a folder in the order of a data set.

    Raises:
        UserError: there is no image in a folder, or none of a pattern.
    """
    found = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            problems = []
            inside = list(image_files(path, [], {}, problems))
            inside.sort(key=lambda each: natural(each.as_posix()))
            raise_problems(problems)
        else:
            is_pattern = not path.exists() and glob.has_magic(name)
            inside = list(map(Path, sorted(glob.glob(name)))) if is_pattern else [path]  # noqa: PTH207
        if not inside:
            raise UserError(f"{name}: there is no image")
        found += inside
    return found


def check_outputs(table: Path | None, picture: Path | None, images: list[Path]) -> None:
    """Raise a UserError if a picture would be no PNG file, or a file would replace an image."""
    if picture and picture.suffix.lower() != ".png":
        raise UserError(f"--show {picture}: the name must end in .png")
    there = {image.resolve() for image in images}
    for option, path in (("--csv", table), ("--show", picture)):
        if path and path.resolve() in there:
            raise UserError(f"{option} {path}: it would replace the image of that name")


@dataclass(frozen=True)
class Network:
    """A trained network, and what its run says of it.

    Raises:
        UserError: the record is missing or damaged, or the weights are not the model's.
    """

    folder: Path
    device: torch.device

    @cached_property
    def record(self) -> dict:
        """The record of the run."""
        return read_trained(RunFiles(self.folder), verify="all")

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return self.record["classes"]

    @property
    def trained_on(self) -> str:
        """Say what it was trained on."""
        text = f"was trained on {self.record['dataset'] or self.record['data']}"
        if self.classes != DIGITS:
            more = ", ..." if len(self.classes) > 20 else ""
            text += f", whose classes are {', '.join(self.classes[:20])}{more}"
        return text

    @property
    def form(self) -> Form:
        """The form of its images."""
        known = {key: each for key, each in (self.record.get("form") or {}).items() if each}
        size, channels = tuple(self.record["image_size"]), self.record.get("channels", 1)
        return Form.of(known | {"image_size": size, "channels": channels})

    @property
    def is_for_drawings(self) -> bool:
        """Whether images are brought into the frame of MNIST."""
        form = self.record.get("form")
        # Earlier versions have not recorded it.
        return form["framing"] == "mnist" if form else self.classes == DIGITS

    @cached_property
    def module(self) -> torch.nn.Module:
        """The network, in evaluation mode."""
        settings, form = Settings.of(self.record["settings"]), self.form
        seed_everything(settings.seed)  # as in the evaluation
        shape = (form.channels, *form.image_size)
        module = models.build(settings.model, shape, len(self.classes))
        load_weights(module, RunFiles(self.folder).weights)
        return module.to(self.device).eval()

    def answers(self, paths: list[Path]) -> Iterator[tuple[list[Path], np.ndarray, np.ndarray]]:
        """Yield batches: files, their images uint8 [N, channels, height, width], and answers.

        An answer is the probability of each class, [N, classes]. Of files that cannot be
        classified, say why.
        """
        size = self.record["settings"]["evaluation_batch_size"]  # so the bits are the evaluation's
        for first in range(0, len(paths), size):
            batch = paths[first : first + size]
            images, done = self.prepared(batch)
            for path, why in zip(batch, done, strict=True):
                if why:
                    say(f"error: {why if self.is_for_drawings else f'{path}: {why}'}")
            good = [index for index, why in enumerate(done) if not why]
            if good:
                yield [batch[index] for index in good], images[good], self.classify(images[good])

    def prepared(self, paths: list[Path]) -> tuple[np.ndarray, list[str | None]]:
        """Return images in the form of the network, as `lib.data.decoding.decoded` does."""
        size = self.form.image_size
        read = (lambda path: framed_file(path, *size)) if self.is_for_drawings else Path
        return decoded(paths, read, self.form)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class for images uint8 [N, channels, height, width].

        Raises:
            UserError: what the network gives are no probabilities.
        """
        mean, std = (
            torch.tensor(self.record[key], dtype=torch.float32).reshape(-1, 1, 1)
            for key in ("mean", "std")
        )
        with torch.no_grad():
            pixels = normalized(torch.from_numpy(images), mean, std)
            output = self.module(pixels.to(self.device)).cpu()
        sure = probabilities(output, models.output_of(self.record["settings"]["model"]))
        if not sure.isfinite().all():
            raise UserError(f"{self.folder}: what the network computes is not a number")
        return sure.numpy()


@contextmanager
def output(path: Path | None, classes: list[str]) -> Iterator[Callable]:
    """Yield a function that writes the answers for some files into a table, or prints them."""
    if path is None:
        yield partial(print_answers, classes)
        return
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "prediction", "confidence", *classes])
        yield partial(write_answers, writer, classes)


def write_answers(writer: Any, classes: list[str], paths: list[Path], sure: np.ndarray) -> None:
    """Write one row per image."""
    for path, row in zip(paths, sure.tolist(), strict=True):
        writer.writerow([path, classes[int(np.argmax(row))], max(row), *row])


def print_answers(classes: list[str], paths: list[Path], sure: np.ndarray) -> None:
    """Print each image's classes by probability, the most probable first."""
    wide = max(map(len, classes))
    for path, row in zip(paths, sure.tolist(), strict=True):
        ranked = sorted(zip(row, classes, strict=True), reverse=True)
        print(f"{path}: {ranked[0][1]}")
        for share, name in ranked[:MOST_CLASSES]:
            print(f"  {name:>{wide}}  {100 * share:6.2f}%  {'#' * round(40 * share)}")


def save_picture(path: Path, images: np.ndarray) -> None:
    """Draw images uint8 [N, channels, height, width] enlarged, in rows in their order.

    Raises:
        TemporaryError: the file cannot be written; the message names it.
    """
    columns, times = min(len(images), COLUMNS), max(1, DRAWN // max(images.shape[2:]))
    tiles = images.repeat(times, axis=2).repeat(times, axis=3).transpose(0, 2, 3, 1)
    empty = -len(tiles) % columns
    tiles = np.pad(tiles, ((0, empty), (2, 2), (2, 2), (0, 0)), constant_values=128)
    rows = [np.hstack(tiles[first : first + columns]) for first in range(0, len(tiles), columns)]
    pixels = np.vstack(rows)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(temporary, "PNG")


if __name__ == "__main__":
    command_line.run(main)
