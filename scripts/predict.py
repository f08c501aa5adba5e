"""Classify your own image files with a trained run.

    python scripts/predict.py --model results/runs/cnn/seed1 digit.png ...

Each image may have any size, in color or gray, dark on light or light on dark, with a digit and
nothing else on it. It is brought into the frame of MNIST's images as MNIST was made: gray levels,
the digit scaled into a box of 20 x 20 pixels with its proportions kept, and placed in 28 x 28
pixels so that its center of mass is in the middle (Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST
database of handwritten digits). So use a run that was trained on MNIST, or on images framed alike.

--show draws what the network sees. The answers are on standard output, all else is on standard
error. The exit status is 1 if an image could not be classified.
"""

import csv
import logging
import sys
from pathlib import Path

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
from lib.data.drawings import framed_file
from lib.training.metrics import probabilities
from lib.training.state import seed_everything
from lib.training.weights import load_weights

DIGITS = list("0123456789")
ENLARGED = 8  # times: --show draws one pixel of the network's input as a square of so many
COLUMNS = 10  # images per row of --show


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image files, a digit in each")
    add("--model", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add("--csv", action="store_true", help="print CSV (default: a table to read)")
    add(
        "--show",
        type=Path,
        metavar="FILE",
        help="a PNG file to draw what the network sees (default: none)",
    )
    add("--any-classes", action="store_true", help="any classes (default: the ten digits only)")
    args = parser.parse_args()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # damaged files are reported here
    if args.show:
        check_picture(args.show, args.images)

    record = read_record(args.model, args.any_classes)
    images, framed = frame_all(args.images, *record["image_size"])
    if images:
        sure = classify(framed, args.model, record)
        (print_csv if args.csv else print_table)(images, record["classes"], sure)
        if args.show:
            save_picture(args.show, framed)
            say(f"what the network saw is in {args.show}")
    sys.stdout.flush()
    sys.exit(0 if len(images) == len(args.images) else 1)


def say(text: str) -> None:
    """Print what is not an answer."""
    print(text, file=sys.stderr)


def check_picture(path: Path, images: list[Path]) -> None:
    """Raise a UserError if a picture would be no PNG file, or would replace one of the images."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--show {path}: the name must end in .png")
    if path.resolve() in [image.resolve() for image in images]:
        raise UserError(f"--show {path}: it would replace the image of that name")


def read_record(model: Path, any_classes: bool) -> dict:
    """Return a run's record, and say what the run was trained on.

    Raises:
        UserError: the record is missing or damaged, or its classes are not the ten digits and
            `any_classes` is not set.
    """
    files = RunFiles(model)
    record = read_trained(files, verify="all")
    classes = record["classes"]
    trained = f"was trained on {record['dataset'] or record['data']}"
    if classes != DIGITS:
        trained += f", whose classes are {', '.join(classes)}"
        if not any_classes:
            raise UserError(
                f"{model} {trained}. It cannot tell which digit an image shows. "
                "To classify by these classes, add --any-classes"
            )
    if record.get("channels", 1) != 1:
        raise UserError(f"{model} {trained}, of color images. Drawings are gray")
    say(f"{model} {trained}")
    return record


def frame_all(paths: list[Path], height: int, width: int) -> tuple[list[Path], np.ndarray]:
    """Return the files that can be classified, and their images uint8 [N, height, width].

    Of the others, say why they cannot be.
    """
    good, framed = [], []
    for path in paths:
        try:
            framed.append(framed_file(path, height, width))
            good.append(path)
        except UserError as error:
            say(f"error: {error}")
    return good, np.array(framed)


def classify(framed: np.ndarray, model: Path, record: dict) -> list[list[float]]:
    """Return the probability of each class for images uint8 [N, height, width].

    Raises:
        UserError: the weights are not the model's, or give no probabilities.
    """
    settings = Settings.of(record["settings"])
    seed_everything(settings.seed)  # as in the evaluation
    network = models.build(settings.model, (1, *record["image_size"]), len(record["classes"]))
    load_weights(network, RunFiles(model).weights)
    network.eval()
    pixels = torch.from_numpy(framed).to(torch.float32).div(255)
    with torch.no_grad():
        mean, std = (torch.tensor(record[key]).reshape(-1, 1, 1) for key in ("mean", "std"))
        output = network(pixels.unsqueeze(1).sub(mean).div(std))
    sure = probabilities(output, models.output_of(settings.model))
    if not sure.isfinite().all():
        raise UserError(f"{model}: what the network computes is not a number")
    return sure.tolist()


def print_table(images: list[Path], classes: list[str], sure: list[list[float]]) -> None:
    """Print each image's classes by probability, the most probable first."""
    wide = max(map(len, classes))
    for path, row in zip(images, sure, strict=True):
        ranked = sorted(zip(row, classes, strict=True), reverse=True)
        print(f"{path}: {ranked[0][1]}")
        for probability, name in ranked:
            print(f"  {name:>{wide}}  {100 * probability:6.2f}%  {'#' * round(40 * probability)}")


def print_csv(images: list[Path], classes: list[str], sure: list[list[float]]) -> None:
    """Print one row per image: the file, the prediction, and each class's probability."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "prediction", *classes])
    for path, row in zip(images, sure, strict=True):
        writer.writerow([path, classes[int(np.argmax(row))], *row])


def save_picture(path: Path, framed: np.ndarray) -> None:
    """Draw images uint8 [N, height, width] enlarged, in rows in their order.

    Raises:
        UserError: the file cannot be written; the message names it.
    """
    columns = min(len(framed), COLUMNS)
    tiles = framed.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (2, 2), (2, 2)), constant_values=128)
    rows = [np.hstack(tiles[first : first + columns]) for first in range(0, len(tiles), columns)]
    with atomic_path(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary, format="PNG")


if __name__ == "__main__":
    command_line.run(main)
