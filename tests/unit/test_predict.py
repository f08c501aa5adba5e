"""A user's own images: brought into MNIST's frame, classified, or rejected."""

import csv
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw
from safetensors import safe_open

import predict
from lib.core.errors import UserError


@pytest.fixture(scope="module")
def digits(finished_once):
    """Test images uint8 [N, 28, 28] and their labels."""
    with safe_open(finished_once.data, framework="numpy") as file:
        return file.get_tensor("test_images"), file.get_tensor("test_labels")


def run(finished, *arguments, check=True):
    command = [sys.executable, "scripts/predict.py", "--model", finished.run_folder("cnn")]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def as_drawn(image, look):
    """Return a digit as a user may have it."""
    picture = Image.fromarray(image)
    if look == "large, dark on light":
        return Image.fromarray(255 - image).resize((280, 280), Image.Resampling.BICUBIC)
    if look == "in a corner of a wide sheet":
        sheet = Image.new("L", (400, 200), 250)
        sheet.paste(Image.fromarray(255 - image).resize((84, 84)), (10, 100))
        return sheet
    if look == "blue on yellow":
        gray = image[..., None] / 255
        return Image.fromarray(
            (gray * (20, 20, 120) + (1 - gray) * (250, 240, 150)).astype("uint8")
        )
    if look == "transparent":
        black = np.zeros((28, 28, 4), dtype=np.uint8)
        black[..., 3] = image
        return Image.fromarray(black)
    return picture


@pytest.mark.parametrize(
    "look",
    ["as it is", "large, dark on light", "in a corner of a wide sheet", "blue on yellow",
     "transparent"],
)  # fmt: skip
def test_images_of_any_look_come_into_the_frame(digits, look, tmp_path):
    near = []
    for number, image in enumerate(digits[0][:50]):
        path = tmp_path / f"{number}.png"
        as_drawn(image, look).save(path)
        framed = predict.frame(predict.read_gray(path), 28, 28)
        assert (framed.shape, framed.dtype) == ((28, 28), np.uint8)
        rows, columns = np.nonzero(framed)
        assert max(np.ptp(rows), np.ptp(columns)) <= 20
        mass = framed / framed.sum()
        center = [float(mass.sum(axis=1 - axis) @ np.arange(28)) for axis in (0, 1)]
        assert center == pytest.approx([14, 14], abs=0.51)
        near.append(np.corrcoef(framed.ravel(), image.ravel())[0, 1])
    assert np.median(near) > 0.95  # MNIST's own frame, to the pixel or nearly


@pytest.mark.parametrize("look", ["as it is", "large, dark on light", "blue on yellow"])
def test_they_are_classified_as_the_test_set_is(finished_once, digits, look, tmp_path):
    count = 100
    for number, image in enumerate(digits[0][:count]):
        as_drawn(image, look).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(count)]
    done = run(finished_once, "--csv", *files)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    right = sum(
        int(row["prediction"]) == label for row, label in zip(rows, digits[1], strict=False)
    )
    table = pd.read_csv(finished_once.run_folder("cnn") / "predictions.csv.gz")[:count]
    as_they_are = (table["label"] == table["prediction"]).sum()
    assert abs(right - as_they_are) <= 5
    for row in rows:
        sure = [float(row[str(digit)]) for digit in range(10)]
        assert sum(sure) == pytest.approx(1, abs=1e-5)
        assert sure.index(max(sure)) == int(row["prediction"])


def test_the_table(finished_once, digits, tmp_path):
    Image.fromarray(digits[0][0]).save(tmp_path / "seven.png")
    lines = run(finished_once, tmp_path / "seven.png").stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'seven.png'}: 7"
    assert lines[1].split()[:1] == ["7"]
    assert len(lines) == 11


def test_what_is_not_an_image_is_named(finished_once, tmp_path):
    (tmp_path / "notes.txt").write_text("seven")
    done = run(finished_once, tmp_path / "notes.txt", check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'notes.txt'} is not an image" in done.stderr


def test_a_missing_image_is_named(finished_once, tmp_path):
    done = run(finished_once, tmp_path / "none.png", check=False)
    assert done.returncode == 1
    assert f"cannot read {tmp_path / 'none.png'}" in done.stderr


def test_a_truncated_image_is_named(finished_once, digits, tmp_path):
    path = tmp_path / "truncated.png"
    Image.fromarray(digits[0][0]).resize((280, 280)).save(path)
    path.write_bytes(path.read_bytes()[:500])
    done = run(finished_once, path, check=False)
    assert done.returncode == 1
    assert str(path) in done.stderr


def test_a_blank_image_is_named(tmp_path):
    path = tmp_path / "blank.png"
    Image.new("L", (50, 40), 200).save(path)
    with pytest.raises(UserError, match=r"blank\.png is of one color"):
        predict.framed_file(path, 28, 28)


@pytest.mark.parametrize("width", [1, 6])
def test_thin_lines_on_a_large_sheet(width, tmp_path):
    sheet = Image.new("L", (3000, 3000), "white")
    ImageDraw.Draw(sheet).line([(1500, 100), (1500, 2900)], fill="black", width=width)
    ImageDraw.Draw(sheet).line([(100, 1500), (2900, 1500)], fill="black", width=width)
    sheet.save(tmp_path / "cross.png")
    framed = predict.framed_file(tmp_path / "cross.png", 28, 28)
    assert framed.max() == 255
    assert (framed > 60).sum() > 30


def test_dots_far_apart():
    gray = np.full((3000, 3000), 255.0)
    gray[100, 100] = gray[2900, 2900] = 0
    assert predict.frame(gray, 28, 28).max() == 255


def test_sixteen_bits(digits, tmp_path):
    image = 5000 + 215 * digits[0][0].astype(np.uint16)
    Image.fromarray(image).save(tmp_path / "deep.png")
    Image.fromarray(digits[0][0]).save(tmp_path / "plain.png")
    deep, plain = (predict.framed_file(tmp_path / f"{n}.png", 28, 28) for n in ("deep", "plain"))
    assert np.abs(deep.astype(int) - plain).max() <= 3
