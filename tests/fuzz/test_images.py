"""Whatever is in an image file, it is framed or rejected with a message that names it."""

import io
import time
import warnings

import numpy as np
import pytest
from budget import seconds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lib.core.errors import UserError
from lib.data.drawings import framed_file

MODES = "1 L LA P PA RGB RGBA I;16 I F CMYK YCbCr LAB HSV".split()
FORMATS = "PNG TIFF JPEG GIF BMP WEBP PPM TGA ICO JPEG2000".split()
SIDES = st.one_of(st.integers(1, 4), st.integers(1, 300))
FILLS = ["constant", "noise", "lines", "frame", "gradient", "nan", "huge"]


def levels(fill, width, height, seed):
    """Return gray levels 0-255, float [height, width]."""
    rng = np.random.default_rng(seed)
    if fill == "noise":
        return rng.integers(0, 256, (height, width)).astype(float)
    paper, ink = (int(level) for level in rng.integers(0, 256, 2))
    picture = Image.new("L", (width, height), paper)
    draw = ImageDraw.Draw(picture)
    if fill != "constant":
        points = [tuple(point) for point in rng.integers(0, (width, height), (4, 2)).tolist()]
        draw.line(points, fill=ink, width=int(rng.integers(1, 9)))
    if fill == "frame":
        draw.rectangle([0, 0, width - 1, height - 1], outline=ink)
    light = np.linspace(rng.uniform(), 1, width) if fill == "gradient" else 1
    return np.asarray(picture, dtype=float) * light


def image_of(mode, fill, width, height, seed):
    """Return an image of a mode, which has something of each kind of its values."""
    gray = levels(fill, width, height, seed)
    eight_bits = Image.fromarray(gray.astype(np.uint8))
    if mode == "F":
        worst = {"nan": np.nan, "huge": 3e38}.get(fill)
        values = gray.astype(np.float32) * np.float32([1, 1 / 255, -1e-30][seed % 3])
        if worst:
            values[seed % height, seed % width] = worst
        return Image.fromarray(values)
    if mode in ("I", "I;16"):
        depth = np.uint16 if mode == "I;16" else np.int32
        return Image.fromarray((gray * [1, 16, 257][seed % 3]).astype(depth))
    if mode == "LAB":
        return Image.merge("LAB", [eight_bits] * 3)
    image = eight_bits.convert("L" if mode == "PA" else mode if mode != "HSV" else "RGB")
    if mode in ("LA", "RGBA") and seed % 2:
        image.putalpha(Image.fromarray(levels("lines", width, height, seed + 1).astype(np.uint8)))
    return image.convert(mode) if mode in ("PA", "HSV") else image


@st.composite
def files(draw):
    """Draw the bytes of an image file, intact or damaged."""
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    fill, seed = draw(st.sampled_from(FILLS)), draw(st.integers(0, 2**16))
    image = image_of(mode, fill, draw(SIDES), draw(SIDES), seed)
    file = io.BytesIO()
    try:
        image.save(file, format=kind)
    except (OSError, ValueError, KeyError, SystemError):  # a mode that the format does not have
        file = io.BytesIO()
        image.save(file, format="TIFF") if mode != "HSV" else image.convert("RGB").save(file, "PNG")
    content = bytearray(file.getvalue())
    damage = draw(st.sampled_from(["none", "none", "truncated", "flipped", "flipped"]))
    if damage == "truncated":
        return bytes(content[: draw(st.integers(0, len(content) - 1))])
    if damage == "flipped":
        for _ in range(draw(st.integers(1, 8))):
            # Most of what decides is in the first bytes.
            last = draw(st.sampled_from([min(len(content), 64), len(content)])) - 1
            content[draw(st.integers(0, last))] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def test_every_file_is_framed_or_rejected_by_name(tmp_path):
    path = tmp_path / "drawn.image"

    @settings(
        max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(content=files(), shape=st.sampled_from([(28, 28), (28, 20), (5, 64), (1, 1)]))
    def check(content, shape):
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning would be text on a user's screen
            try:
                framed = framed_file(path, *shape)
            except UserError as error:
                assert str(path) in str(error)
                return
        assert (framed.shape, framed.dtype, framed.max()) == (shape, np.uint8, 255)

    end = time.monotonic() + seconds()
    while time.monotonic() < end:
        check()


@pytest.mark.parametrize("mode", MODES)
def test_the_generator_makes_every_mode(mode):
    assert image_of(mode, "lines", 30, 20, 1).mode == mode
