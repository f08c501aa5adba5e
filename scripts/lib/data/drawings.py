"""A user's own images of digits, brought into MNIST's frame as the makers of MNIST did it.

Gray levels, light on dark, the digit cropped and scaled into a box of 20 x 20 pixels, and placed in
28 x 28 pixels so that its center of mass is in the middle.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from lib.core.errors import UserError

LARGEST = 2000  # pixels; an image with a longer side is reduced when it is read
FAINTEST = 16  # gray levels of 256 by which a digit must differ from its background
INK = 0.1  # share of the strongest ink below which a pixel counts as background
BOX = 20 / 28  # share of the frame's side that the digit fills


def framed_file(path: Path, height: int, width: int) -> np.ndarray:
    """Bring the digit in an image file into MNIST's frame.

    Returns:
        uint8 [height, width] with the maximum 255.

    Raises:
        UserError: the file is missing, not an image, too large, or blank; the message names it.
    """
    ink = light_on_dark(read_gray(path))
    if ink.max() < FAINTEST:
        raise UserError(f"{path} is of one color: there is nothing to classify")
    return frame(ink, height, width)


def read_gray(path: Path) -> np.ndarray:
    """Return an image as gray levels 0-255, float64 [height, width]; the first of several frames.

    Raises:
        UserError: it is missing, not an image, too large, or has values that are no numbers.
    """
    too_large = (Image.DecompressionBombWarning, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                ImageOps.exif_transpose(image, in_place=True)
                gray = to_gray(image)
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image of a known format") from error
    except too_large as error:
        limit = f"{Image.MAX_IMAGE_PIXELS:,} pixels"
        raise UserError(f"{path} has more than {limit}: make it smaller first") from error
    # Pillow's decoders raise errors of nearly any type where a file is damaged.
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error
    if not np.isfinite(gray).all():
        raise UserError(f"{path} contains values that are not finite numbers (NaN or infinity)")
    return gray


def to_gray(image: Image.Image) -> np.ndarray:
    """Return an image of any mode as gray levels 0-255, float64 [height, width].

    A transparent image is put on white. If nothing shows there, its opacity is the drawing.
    """
    deep = image.mode[0] in "IF"  # more than 8 bits
    mode = "F" if deep else "RGBA" if image.has_transparency_data else "L"
    if image.mode != mode:  # a copy of a large image would take hundreds of megabytes
        image = image.convert(mode)
    image = image.reduce(-(-max(image.size) // LARGEST))
    if mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        gray = Image.alpha_composite(white, image).convert("L")
        image = gray if np.ptp(gray) >= FAINTEST else image.getchannel("A")
    levels = np.asarray(image, dtype=np.float64)
    return levels * (255 / (np.abs(levels).max() or 1)) if deep else levels


def light_on_dark(gray: np.ndarray) -> np.ndarray:
    """Return how much lighter, or on a light background darker, each pixel is than the border."""
    background = np.median(np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]]))
    is_light = background > (gray.min() + gray.max()) / 2
    return np.maximum(background - gray if is_light else gray - background, 0)


def frame(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop to the ink, scale it, and center it by mass.

    Args:
        ink: 0 where nothing is drawn [any height, any width].
        height: of the frame in pixels.
        width: of the frame.

    Returns:
        uint8 [height, width] with the maximum 255.
    """
    ink = np.where(ink < INK * ink.max(), 0, ink)
    rows, columns = np.nonzero(ink)
    digit = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = min(BOX * height / digit.shape[0], BOX * width / digit.shape[1])
    size = [max(1, round(scale * side)) for side in reversed(digit.shape)]
    small = np.asarray(Image.fromarray(digit).resize(size, Image.Resampling.LANCZOS)).clip(0)
    # Thin lines fade when they shrink.
    small = (small * (255 / small.max())).round().astype(np.uint8)
    framed = np.zeros((height, width), dtype=np.uint8)
    # In MNIST the center of mass is on pixel 14 of 0 to 27. The digit stays inside the frame.
    top, left = (
        int(np.clip(round(side / 2 - center), 0, side - length))
        for side, center, length in zip(
            framed.shape, ndimage.center_of_mass(small), small.shape, strict=True
        )
    )
    framed[top : top + small.shape[0], left : left + small.shape[1]] = small
    return framed
