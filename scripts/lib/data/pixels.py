"""From the file of an image, of whatever kind, to pixels of one shape.

Gray images stay gray, all others become RGB. What is transparent is put on white. A photograph is
turned as its camera says. Of several frames, or pages, the first one is taken. Gray images of more
than 8 bits need `max_value`, or what is white would be guessed. Of 16 bits per color, Pillow takes
the higher 8.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lib.core.errors import UserError

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF: width and height change places
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Form:
    """What all images of a data set are brought into.

    Attributes:
        image_size: (height, width); None: as they are.
        channels: 1 or 3; None: as they are.
        resize: `crop`: the shorter side is scaled, and the middle taken, as torchvision's presets
            do; `pad`: the longer side is scaled, and black added; `stretch`: both are scaled.
        max_value: the value of white, where pixels have more than 8 bits; None: there are none.
    """

    image_size: tuple[int, int] | None = None
    channels: int | None = None
    resize: str = "crop"
    max_value: float | None = None

    @classmethod
    def of(cls, entry: dict) -> Self:
        """Return what the entry of a data set says."""
        return cls(**{each.name: entry[each.name] for each in fields(cls) if each.name in entry})


def digest_of(pixels: np.ndarray) -> str:
    """Return a digest of the pixels of an image, of 128 bits."""
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()[:32]


def shape_of(content: bytes | Path | np.ndarray) -> tuple[int, int, int]:
    """Return channels, height and width of an image, of whose file only the header is decoded.

    Raises:
        UserError: it is not an image; the message does not name it.
    """
    if isinstance(content, np.ndarray):
        return (1 if content.ndim == 2 else content.shape[2]), *content.shape[:2]
    with _opened(content) as image:
        width, height = image.size
        # Pillow turns a TIFF itself, and says its size so.
        if image.format != "TIFF" and image.getexif().get(ORIENTATION) in TURNED:
            width, height = height, width
        return (1 if _is_gray(image) else 3), height, width


def pixels_of(content: bytes | Path | np.ndarray, form: Form) -> tuple[np.ndarray, list[str]]:
    """Return an image in the form of the data set, and what was done to it.

    Args:
        content: a file, or its content; or pixels [height, width] or [height, width, channels].
        form: that of the data set.

    Returns:
        uint8 [channels, height, width], and words for the audit.

    Raises:
        UserError: it is not an image, damaged, or cannot be brought into the form; the message does
            not name it.
    """
    if isinstance(content, np.ndarray):
        if content.dtype == np.uint8 and (1, *content.shape) == (form.channels, *form.image_size):
            return content[None], []
        done = [] if content.dtype == np.uint8 else ["more than 8 bits, scaled"]
        squeezed = content[..., 0] if content.ndim == 3 and content.shape[2] == 1 else content
        image = Image.fromarray(_bytes(squeezed, form.max_value))
    else:
        with _opened(content) as opened:
            image, done = _plain(opened, form.max_value)
    channels = form.channels or (1 if image.mode == "L" else 3)
    if (image.mode == "L") != (channels == 1):
        done.append("color to gray" if channels == 1 else "gray to color")
        image = image.convert("L" if channels == 1 else "RGB")
    if form.image_size and (image.height, image.width) != tuple(form.image_size):
        done.append("scaled from another size")
        image = _resized(image, *form.image_size, form.resize)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0), done


@contextmanager
def _opened(content: bytes | Path) -> Iterator[Image.Image]:
    """Open an image; turn whatever a decoder raises into `UserError`."""
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise UserError(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels")
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        why = "it is not an image of a known format" if size else "it is empty"
        raise UserError(why) from error
    except Image.DecompressionBombError as error:
        raise UserError(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # of nearly any type where a file is damaged
        if isinstance(error, OSError) and error.strerror:  # it is not the content
            raise UserError(error.strerror) from error
        raise UserError(f"it is truncated or damaged: {error}") from error


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        return not np.ptp(np.reshape(image.getpalette("RGB"), (-1, 3)), axis=1).any()
    return image.mode in ("1", "L", "LA", "La", *DEEP)


def _plain(image: Image.Image, max_value: float | None) -> tuple[Image.Image, list[str]]:
    """Return an image in the mode L or RGB, and what was done to it."""
    done = []
    if getattr(image, "n_frames", 1) > 1:
        done.append("first of several frames")
    if image.mode not in DEEP and any(";16" in str(tile) for tile in image.tile):
        done.append("16 bits per color, of which the higher 8 were taken")
    mode = "L" if _is_gray(image) else "RGB"
    if image.getexif().get(ORIENTATION, 1) != 1:
        done.append("turned as its camera says")
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP:
        done.append("more than 8 bits, scaled")
        return Image.fromarray(_bytes(np.asarray(image), max_value)), done
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            done.append("transparent, put on white")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "CMYK":
        done.append("CMYK to RGB")
    return image.convert(mode), done


def _bytes(values: np.ndarray, max_value: float | None) -> np.ndarray:
    """Return values as bytes: those that are none already are scaled from 0 to `max_value`.

    Raises:
        UserError: it is not said what is white, or a value is beyond it.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    low, high = values.min(), values.max()
    found = f"its values are from {low} to {high}"
    if not np.isfinite([low, high]).all():
        raise UserError("it has values that are not finite numbers")
    if max_value is None:
        raise UserError(f"it has more than 8 bits, {found}: set max_value to the value of white")
    if low < 0 or high > max_value:
        raise UserError(f"{found}, not from 0 to max_value, {max_value}")
    return np.rint(values.astype(np.float64) * (255 / max_value)).astype(np.uint8)


def _resized(image: Image.Image, height: int, width: int, resize: str) -> Image.Image:
    """Return an image of a size, scaled with antialiasing as torchvision does it on PIL images."""
    if resize == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    # By the width, or by the height: the other side then is as long as wanted, or longer (`crop`),
    # or shorter (`pad`).
    by_width = (width * image.height >= height * image.width) == (resize == "crop")
    size = (width, max(1, width * image.height // image.width))
    if not by_width:
        size = (max(1, height * image.width // image.height), height)
    scaled = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return scaled.crop((left, top, left + width, top + height))  # beyond the image it is black
