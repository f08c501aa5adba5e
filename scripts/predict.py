"""Classify your own image files with a trained run.

    python scripts/predict.py --model results/runs/cnn/seed1 digit.png ...

Each image may be of any size, in color or gray, dark on light or light on dark. It is brought into
the frame of MNIST's images in the way MNIST was made: gray levels, the drawing scaled into a box of
20 x 20 pixels with its proportions kept, and placed in 28 x 28 pixels so that its center of mass is
in the middle (Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits). So
use a run that was trained on MNIST, or on drawings framed like those.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

import models
from lib.core import command_line
from lib.core.errors import UserError
from lib.core.layout import RunFiles
from lib.training.metrics import probabilities
from lib.training.outcome import read_trained
from lib.training.weights import load_weights

FAINTEST = 16  # gray levels of 256 by which a drawing must differ from its paper
BOX = 20 / 28  # share of the frame's side that the drawing fills
INK = 0.1  # share of the strongest stroke below which a pixel counts as paper


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image files, a drawing in each")
    add("--model", type=Path, required=True, metavar="DIR", help="a run's folder, from train.py")
    add("--csv", action="store_true", help="print CSV (default: a table to read)")
    args = parser.parse_args()

    files = RunFiles(args.model)
    record = read_trained(files)
    height, width = record["image_size"]
    framed = np.stack([framed_file(path, height, width) for path in args.images])
    model = models.build(record["settings"]["model"], (height, width), len(record["classes"]))
    load_weights(model, files.weights)
    model.eval()
    pixels = torch.from_numpy(framed).to(torch.float32).div(255)
    with torch.no_grad():
        output = model(pixels.sub(record["mean"]).div(record["std"]).unsqueeze(1))
    sure = probabilities(output, models.output_of(record["settings"]["model"])).tolist()
    (print_csv if args.csv else print_table)(args.images, record["classes"], sure)


def framed_file(path: Path, height: int, width: int) -> np.ndarray:
    """Return an image file's drawing in MNIST's frame, uint8 [height, width].

    Raises:
        UserError: the file is missing, not an image, or empty; the message names it.
    """
    framed = frame(read_gray(path), height, width)
    if framed is None:
        raise UserError(f"{path} is of one color: there is nothing to classify")
    return framed


def read_gray(path: Path) -> np.ndarray:
    """Return an image as gray levels 0-255, float64 [height, width]; what is transparent is white.

    Raises:
        UserError: it is missing, or not an image.
    """
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # more than 8 bits: frame() stretches the levels anyway
                return np.asarray(ImageOps.exif_transpose(image), dtype=np.float64) / 256
            colors = ImageOps.exif_transpose(image).convert("RGBA")
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image of a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    white = Image.new("RGBA", colors.size, "white")
    return np.asarray(Image.alpha_composite(white, colors).convert("L"), dtype=np.float64)


def frame(gray: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Bring a drawing into MNIST's frame: light on dark, scaled, centered by mass.

    Args:
        gray: gray levels [any height, any width]. The median of the border is the background.
        height: of the frame in pixels.
        width: of the frame.

    Returns:
        uint8 [height, width], or None where the image is of one color.
    """
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    strokes = np.abs(gray - np.median(border))
    if strokes.max() < FAINTEST:
        return None
    strokes *= 255 / strokes.max()
    strokes[strokes < 255 * INK] = 0
    rows, columns = np.nonzero(strokes)
    drawn = strokes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    scale = min(BOX * height / drawn.shape[0], BOX * width / drawn.shape[1])
    size = [max(1, round(scale * side)) for side in reversed(drawn.shape)]
    small = np.asarray(Image.fromarray(drawn).resize(size, Image.Resampling.LANCZOS)).clip(0)
    # Thin lines fade when they shrink.
    return centered((small * 255 / small.max()).round().astype(np.uint8), height, width)


def centered(small: np.ndarray, height: int, width: int) -> np.ndarray:
    """Place an image uint8 so that its center of mass is in the middle of the frame."""
    mass = small.astype(np.float64)
    place = []
    for axis, side in enumerate((height, width)):
        along = mass.sum(axis=1 - axis)
        middle = (along @ np.arange(len(along))) / along.sum()
        # In MNIST the center of mass is on pixel 14 of 0 to 27. The image stays inside the frame.
        place.append(int(np.clip(round(side / 2 - middle), 0, side - len(along))))
    framed = np.zeros((height, width), dtype=np.uint8)
    top, left = place
    framed[top : top + small.shape[0], left : left + small.shape[1]] = small
    return framed


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


if __name__ == "__main__":
    command_line.run(main)
