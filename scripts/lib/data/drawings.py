"""A user's own drawings: read from image files of any kind, and brought into MNIST's frame.

An image becomes gray levels, gray levels become strokes (how much is drawn on each pixel, whatever
the color, the light, and the frame around), and strokes are scaled and centered as MNIST's are.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from lib.core.errors import UserError

LARGEST = 2000  # pixels; an image with a longer side is reduced when it is read
PHOTO = 300  # pixels; the longer side at which uneven light is removed, which also averages noise
FAINTEST = 16  # gray levels of 256 by which a drawing must differ from its paper
BOX = 20 / 28  # share of the frame's side that the drawing fills
INK = 0.1  # share of the strongest stroke below which a pixel counts as paper
MOST_NOISE = 0.3  # share of the strongest stroke that is never taken for noise
WIDEST = 1 / 5  # share of the image's shorter side; a wider dark area is a shadow, not a stroke
DRAWN = 1 / 8  # share of the image's shorter side; what is smaller is no frame, and no whole digit
SPECK = 1 / 40  # share of the image's shorter side; what is smaller in a noisy image is noise
FULL = 0.85  # share of the pixels at a distance from the border that makes them a frame, or paper


def framed_file(path: Path, height: int, width: int) -> tuple[np.ndarray, list[str]]:
    """Bring an image file's drawing into MNIST's frame.

    Returns:
        uint8 [height, width] with the maximum 255, and what was removed from the image, in words.

    Raises:
        UserError: the file is missing, not an image, too large, or blank; the message names it.
    """
    strokes, removed = find_strokes(read_gray(path))
    if strokes is None:
        raise UserError(f"{path} is of one color: there is nothing to classify")
    return frame(strokes, height, width), removed


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
    """Return an image of any mode as gray levels 0-255, float64 [height, width]."""
    if image.mode[0] in "IF":  # more than 8 bits; nothing says which value is white
        deep = reduced(image.convert("I") if image.mode.startswith("I") else image)
        values = np.asarray(deep, dtype=np.float64)
        return values * (255 / (np.abs(values).max() or 1))
    if not image.has_transparency_data:
        return np.asarray(reduced(image.convert("L")), dtype=np.float64)
    # A large image's copy would take hundreds of megabytes.
    colors = reduced(image if image.mode == "RGBA" else image.convert("RGBA"))
    alpha = np.asarray(colors.getchannel("A"), dtype=np.float64)
    return on_paper(np.asarray(colors.convert("L"), dtype=np.float64), alpha)


def reduced(image: Image.Image) -> Image.Image:
    """Return an image whose longer side is at most LARGEST, with its proportions."""
    factor = -(-max(image.size) // LARGEST)
    return image.reduce(factor) if factor > 1 else image


def on_paper(gray: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return a partly transparent image as gray levels, on a paper on which the drawing shows.

    What is visible is the drawing, whatever its colors, as black on white. But where it has colors
    and fills its bounding box, it is a card with a drawing on it: the paper continues the card.

    Args:
        gray: levels 0-255 [height, width].
        alpha: opacity 0-255 of the same shape.
    """
    visible = alpha >= 128
    if not visible.any():
        return 255 - alpha
    rows, columns = np.nonzero(visible)
    share = len(rows) / (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    if (np.ptp(gray[visible]) < FAINTEST and np.ptp(alpha) >= FAINTEST) or share < 1 / 2:
        return 255 - alpha
    paper = np.median(gray[visible])
    return paper + (gray - paper) * (alpha / 255)


def find_strokes(gray: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """Find what is drawn on the paper, in any color.

    Args:
        gray: levels 0-255 [any height, any width].

    Returns:
        How much is drawn on each pixel, 0-255, float64 [height, width] of the image or of a smaller
        version of it, or None where nothing is; and what was removed from the image, in words.
    """
    strokes, removed = np.abs(gray - np.median(ring(gray, 0))), []
    if strokes.max() >= FAINTEST and not is_even(gray, INK * strokes.max()):
        strokes, shadow = without_light(gray, INK * strokes.max())
        removed += ["shadow removed"] * shadow
    strokes = without_noise(strokes)
    if strokes is None:
        return None, []
    edges = frames(strokes)
    if edges.any():
        strokes = without_noise(np.where(edges, 0, strokes))
        removed.append("frame removed")
    return strokes, removed


def ring(image: np.ndarray, depth: int) -> np.ndarray:
    """Return the pixels at a distance from the border, each corner twice."""
    inner = image[depth : image.shape[0] - depth, depth : image.shape[1] - depth]
    return np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])


def is_even(gray: np.ndarray, tolerance: float) -> bool:
    """Return whether the border is paper of one level, and not a frame around the paper."""
    border = ring(gray, 0)
    low, high = np.percentile(border, [5, 95])
    differs = np.abs(gray - np.median(border)) > tolerance
    depths = [part * min(gray.shape) // 16 for part in (1, 2, 3)]
    return high - low <= tolerance and max(ring(differs, n).mean() for n in depths) < FULL


def without_light(gray: np.ndarray, tolerance: float) -> tuple[np.ndarray, bool]:
    """Return the strokes on a paper whose border is uneven, and whether uneven light was removed.

    The paper's level around each pixel is a morphological closing, which removes what is narrower
    than its window, and keeps gradients and the edges of shadows as they are.
    """
    small = resized(gray, PHOTO)
    sign = 1 if has_dark_strokes(small) else -1
    smooth = sign * ndimage.median_filter(small, 3)
    # With an odd window, dilation and erosion are centered.
    window = max(3, round(WIDEST * min(small.shape))) | 1
    # With nothing outside of the image, lines along its border are not taken for paper.
    paper = sign * closing(np.pad(smooth, window, constant_values=-np.inf), window)
    if np.ptp(np.percentile(paper, [2, 98])) <= tolerance:
        return np.abs(gray - np.median(paper)), False
    # With the image continued outside, gradients are followed up to its border.
    paper = sign * closing(np.pad(smooth, window, mode="edge"), window)
    strokes = sign * paper - smooth
    if sign > 0:  # dark ink reflects a share of the light: it differs less from paper in a shadow
        strokes *= 255 / np.maximum(paper, FAINTEST)
    # Noise raises the paper's level above the paper.
    return np.abs(strokes - np.median(strokes)), True


def closing(padded: np.ndarray, window: int) -> np.ndarray:
    """Return the morphological closing of an image that is padded by the window's size."""
    highest = ndimage.maximum_filter(padded, window, mode="nearest")
    highest[np.isinf(padded)] = np.inf  # what is outside decides nothing
    return ndimage.minimum_filter(highest, window, mode="nearest")[(slice(window, -window),) * 2]


def has_dark_strokes(gray: np.ndarray) -> bool:
    """Return whether the few pixels that differ most from those around them are darker."""
    small = resized(gray, 64)
    # With a window of more than twice the image, SciPy reads what is not the image's.
    window = min(33, 2 * min(small.shape) - 1)
    difference = small - ndimage.median_filter(small, window)
    return float((difference**3).sum()) <= 0


def resized(gray: np.ndarray, longest: int) -> np.ndarray:
    """Return an image whose longer side is at most `longest`, with its proportions."""
    scale = longest / max(gray.shape)
    if scale >= 1:
        return gray
    size = [max(1, round(scale * side)) for side in reversed(gray.shape)]
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX), dtype=np.float64)


def without_noise(strokes: np.ndarray) -> np.ndarray | None:
    """Return the strokes stretched to 0-255, and 0 where there is only paper and its noise."""
    strongest = strokes.max()
    if strongest < FAINTEST:
        return None
    noise = 1.4826 * np.median(strokes)  # normal noise's standard deviation: most pixels are paper
    faintest = np.clip(6 * noise, INK * strongest, MOST_NOISE * strongest)
    strokes = np.where(strokes < faintest, 0, strokes * (255 / strongest))
    if noise == 0 or not strokes.any():
        return strokes
    labels, sizes, _ = components(strokes)
    largest = sizes.max(axis=1) / min(strokes.shape)
    weak = ndimage.maximum(strokes, labels, range(1, len(sizes) + 1)) < 255 / 2
    specks = (largest < SPECK) | (largest < DRAWN) & weak
    return strokes if specks.all() else np.where(np.append(False, specks)[labels], 0, strokes)


def components(strokes: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[tuple[slice, slice]]]:
    """Return the connected parts: labels 1 to N, sizes [N, 2] and places of their boxes."""
    labels, _ = ndimage.label(strokes > 0, np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    return labels, np.array([[side.stop - side.start for side in box] for box in boxes]), boxes


def frames(strokes: np.ndarray) -> np.ndarray:
    """Return which pixels belong to a frame around the drawing, bool [height, width]."""
    labels, sizes, boxes = components(strokes)
    drawn = np.flatnonzero(sizes.max(axis=1) >= DRAWN * min(strokes.shape))
    edges = [n for n in drawn if is_edge(labels, n + 1, boxes[n])]
    edges = edges if len(edges) < len(drawn) else []
    around = [n for n in drawn if is_around(labels, n + 1, boxes[n], sizes)]
    found = np.isin(labels, np.add([*edges, *around], 1))
    # A line along the whole border may touch the drawing.
    thick = 0
    while not found.any() and thick < int(DRAWN * min(strokes.shape)):
        if (ring(strokes, thick) > 0).mean() < FULL:
            break
        thick += 1
    if thick:
        found |= np.pad(
            np.zeros(np.subtract(strokes.shape, 2 * thick), bool), thick, constant_values=True
        )
    return found


def is_edge(labels: np.ndarray, number: int, box: tuple[slice, slice]) -> bool:
    """Return whether a component runs along the border of the image, or across all of it."""
    ends = [
        (side.start == 0, side.stop == size) for side, size in zip(box, labels.shape, strict=True)
    ]
    shares = [(side.stop - side.start) / size for side, size in zip(box, labels.shape, strict=True)]
    along = (any(ends[0]) and shares[1] > 2 / 3) or (any(ends[1]) and shares[0] > 2 / 3)
    if not along and sum(map(sum, ends)) < 2:
        return False
    middle = labels[tuple(slice(size // 3, size - size // 3) for size in labels.shape)]
    return min(shares) < DRAWN or not (middle == number).any()


def is_around(labels: np.ndarray, number: int, box: tuple[slice, slice], sizes: np.ndarray) -> bool:
    """Return whether a component is closed around another one, as no part of a digit is."""
    part = labels[box]
    if min(part.shape) < 3:
        return False
    inside = np.unique(part[ndimage.binary_fill_holes(part == number)])
    others = inside[(inside != number) & (inside != 0)] - 1
    return bool((sizes[others].max(axis=1) >= min(part.shape) / 4).any())


def frame(strokes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring strokes into MNIST's frame: light on dark, scaled, centered by mass.

    Args:
        strokes: 0 where nothing is drawn [any height, any width].
        height: of the frame in pixels.
        width: of the frame.

    Returns:
        uint8 [height, width] with the maximum 255.
    """
    rows, columns = np.nonzero(strokes)
    drawn = strokes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = min(BOX * height / drawn.shape[0], BOX * width / drawn.shape[1])
    size = [max(1, round(scale * side)) for side in reversed(drawn.shape)]
    small = np.asarray(Image.fromarray(drawn).resize(size, Image.Resampling.LANCZOS)).clip(0)
    # Thin lines fade when they shrink.
    return centered((small * (255 / small.max())).round().astype(np.uint8), height, width)


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
