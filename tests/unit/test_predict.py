"""A user's own images: brought into MNIST's frame, classified, or rejected."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, in_process
from PIL import Image, ImageDraw
from safetensors import safe_open

import predict
from lib.core import records
from lib.core.errors import UserError
from lib.core.layout import RunFiles
from lib.data import drawings


@pytest.fixture(scope="module")
def digits(finished_once):
    """Test images uint8 [N, 28, 28] and their labels."""
    with safe_open(finished_once.data, framework="numpy") as file:
        return file.get_tensor("test_images")[:, 0], file.get_tensor("test_labels")


def run(finished, *arguments, check=True):
    done = in_process(predict, "--model", finished.run_folder("cnn"), *arguments)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return done


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
    if look in ("transparent", "white on transparent"):
        ink = np.full((28, 28, 4), 255 if "white" in look else 0, dtype=np.uint8)
        ink[..., 3] = image
        return Image.fromarray(ink)
    if look == "a card on transparent":
        card = np.full((40, 40, 4), 255, dtype=np.uint8)
        card[6:34, 6:34, :3] -= image[..., None]
        card[:3, :, 3] = card[-3:, :, 3] = card[:, :3, 3] = card[:, -3:, 3] = 0
        return Image.fromarray(card)
    if look == "palette":
        return picture.quantize(16)
    if look == "CMYK":
        return picture.convert("RGB").convert("CMYK")
    if look in DEEP:
        scale, offset, kind = DEEP[look]
        return Image.fromarray((image.astype(float) * scale + offset).astype(kind))
    return picture


# The factor, the level of the paper, and the type of images of more than 8 bits.
DEEP = {
    "float, 0 to 1": (1 / 255, 0, np.float32),
    "float, -3 to 2": (-1 / 51, 2, np.float32),
    "float, tiny": (1e-9, 0, np.float32),
    "32 bits, of which 8 are used": (1, 0, np.int32),
    "32 bits": (5_000_000, 10_000_000, np.int32),
    "16 bits, of which 12 are used": (-16, 4090, np.uint16),
}
PLAIN = ["as it is", "large, dark on light", "in a corner of a wide sheet"]
COLORED = ["blue on yellow", "palette", "CMYK"]
TRANSPARENT = ["transparent", "white on transparent", "a card on transparent"]


@pytest.mark.parametrize("look", [*PLAIN, *COLORED, *TRANSPARENT, *DEEP])
def test_images_of_any_look_come_into_the_frame(digits, look, tmp_path):
    near = []
    for number, image in enumerate(digits[0][:50]):
        path = tmp_path / f"{number}.tif"
        as_drawn(image, look).save(path)
        framed = drawings.framed_file(path, 28, 28)
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
    run(finished_once, *files, "--csv", tmp_path / "new.csv")
    rows = read_rows(tmp_path / "new.csv")
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
        drawings.framed_file(path, 28, 28)


@pytest.mark.parametrize("width", [1, 6])
def test_thin_lines_on_a_large_sheet(width, tmp_path):
    sheet = Image.new("L", (3000, 3000), "white")
    ImageDraw.Draw(sheet).line([(1500, 100), (1500, 2900)], fill="black", width=width)
    ImageDraw.Draw(sheet).line([(100, 1500), (2900, 1500)], fill="black", width=width)
    sheet.save(tmp_path / "cross.png")
    framed = drawings.framed_file(tmp_path / "cross.png", 28, 28)
    assert framed.max() == 255
    assert (framed > 60).sum() > 30


def test_dots_far_apart():
    gray = np.full((3000, 3000), 255.0)
    gray[100, 100] = gray[2900, 2900] = 0
    ink = drawings.light_on_dark(gray)
    assert np.count_nonzero(ink) == 2
    assert drawings.frame(ink, 28, 28).max() == 255


def test_sixteen_bits(digits, tmp_path):
    image = 5000 + 215 * digits[0][0].astype(np.uint16)
    Image.fromarray(image).save(tmp_path / "deep.png")
    Image.fromarray(digits[0][0]).save(tmp_path / "plain.png")
    deep, plain = (drawings.framed_file(tmp_path / f"{n}.png", 28, 28) for n in ("deep", "plain"))
    assert np.abs(deep.astype(int) - plain).max() <= 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers_are_named(value, tmp_path):
    pixels = np.zeros((20, 20), dtype=np.float32)
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "odd.tif")
    with pytest.raises(UserError, match=r"odd\.tif contains values that are not finite"):
        drawings.framed_file(tmp_path / "odd.tif", 28, 28)


def test_other_images_are_classified_where_one_cannot_be(finished_once, digits, tmp_path):
    Image.new("L", (50, 40), 200).save(tmp_path / "blank.png")
    (tmp_path / "notes.png").write_text("seven")
    for number in (0, 1):
        Image.fromarray(digits[0][number]).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{name}.png" for name in ("blank", "0", "notes", "1")]
    done = run(finished_once, *files, "--csv", tmp_path / "new.csv", check=False)
    assert done.returncode == 1
    rows = read_rows(tmp_path / "new.csv")
    assert [row["file"] for row in rows] == [str(files[1]), str(files[3])]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert str(files[0]) in errors[0]
    assert str(files[2]) in errors[1]


def test_show_draws_what_the_network_sees(finished_once, digits, tmp_path):
    for number in range(12):
        Image.fromarray(digits[0][number]).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(12)]
    picture = tmp_path / "new folder" / "seen.png"
    done = run(finished_once, *files, "--show", picture)
    assert f"what the network saw is in {picture}" in done.stderr
    seen = np.asarray(Image.open(picture))
    enlarged = predict.DRAWN // 28
    tile = 28 * enlarged + 4
    assert seen.shape == (2 * tile, 10 * tile)
    for number in (0, 11):
        top, left = tile * (number // 10), tile * (number % 10)
        step = slice(2 + enlarged // 2, tile - 2, enlarged)
        framed = drawings.framed_file(files[number], 28, 28)
        assert (seen[top : top + tile, left : left + tile][step, step] == framed).all()


@pytest.mark.parametrize("name", ["digit.png", "seen.jpg", "digit.png/seen.png"])
def test_a_picture_that_cannot_be_written_is_named(finished_once, digits, name, tmp_path):
    Image.fromarray(digits[0][0]).save(tmp_path / "digit.png")
    before = (tmp_path / "digit.png").read_bytes()
    done = run(finished_once, tmp_path / "digit.png", "--show", tmp_path / name, check=False)
    assert done.returncode == (os.EX_TEMPFAIL if name == "digit.png/seen.png" else 1)
    assert str(tmp_path / name) in done.stderr
    assert (tmp_path / "digit.png").read_bytes() == before


def change_record(finished, **changes):
    """Change the run's record, and seal it again."""
    files = RunFiles(finished.run_folder("cnn"))
    record = json.loads(files.record.read_text()) | changes
    for key in ("files", records.SEAL):
        del record[key]
    records.write(files.record, record, [files.weights, files.history])


CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")


@pytest.mark.parametrize("known", [{}, {"dataset": "FashionMNIST"}])
def test_a_network_that_knows_no_digits(finished, digits, known, tmp_path):
    change_record(finished, classes=CLOTHES, **known)
    Image.fromarray(digits[0][0]).save(tmp_path / "seven.png")
    trained = finished.record("cnn").get("dataset", finished.record("cnn")["data"])
    done = run(finished, tmp_path / "seven.png")
    assert f"was trained on {trained}, whose classes are T-shirt/top, Trouser" in done.stderr
    assert done.stdout.splitlines()[0].split(": ")[1] in CLOTHES


def test_what_the_network_was_trained_on_is_said(finished_once, digits, tmp_path):
    Image.fromarray(digits[0][0]).save(tmp_path / "seven.png")
    done = run(finished_once, tmp_path / "seven.png")
    assert f"{finished_once.run_folder('cnn')} was trained on " in done.stderr
    assert "MNIST-small" in done.stderr


MEASURE = """
import re, sys
from pathlib import Path
from lib.core.errors import UserError
from lib.data import drawings
try:
    drawings.framed_file(Path(sys.argv[1]), 28, 28)
except UserError as error:
    print(error)
# Of this program alone: ru_maxrss counts what the test's own process had when it started this one.
print(int(re.search(r"VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.extended
@pytest.mark.parametrize(("mode", "side"), [("L", 12_000), ("L", 20_000), ("RGBA", 9_000)])
def test_very_large_images(mode, side, tmp_path):
    path = tmp_path / "large.png"
    sheet = Image.new(mode, (side, side), "white")
    ImageDraw.Draw(sheet).line([(1000, 1000), (8000, 8000)], fill="black", width=50)
    sheet.save(path, compress_level=1)
    del sheet
    command = [sys.executable, "-c", MEASURE, path]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True)
    assert not done.stderr
    *message, memory_mb = done.stdout.splitlines()
    assert float(memory_mb) < 1000
    if side > 9_459:
        assert message == [f"{path} has more than 89,478,485 pixels: make it smaller first"]
    else:
        assert not message


def test_the_first_frame_of_several_counts(digits, tmp_path):
    first, second = (Image.fromarray(digits[0][number]) for number in (0, 1))
    first.save(tmp_path / "several.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "one.gif")
    several, one = (
        drawings.framed_file(tmp_path / f"{name}.gif", 28, 28) for name in ("several", "one")
    )
    assert (several == one).all()


def test_a_photo_that_says_how_it_is_rotated(digits, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise
    digit = Image.fromarray(digits[0][0])
    digit.save(tmp_path / "upright.png")
    digit.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "rotated.png", exif=exif)
    upright, rotated = (
        drawings.framed_file(tmp_path / f"{name}.png", 28, 28) for name in ("upright", "rotated")
    )
    assert (upright == rotated).all()


def test_names_that_are_not_text(finished_once, digits, tmp_path):
    path = tmp_path / "\udcff.png"
    Image.fromarray(digits[0][0]).save(path)
    assert run(finished_once, path).stdout.splitlines()[0].endswith(".png: 7")


def test_weights_that_give_no_numbers(digits, finished_once, tmp_path, monkeypatch):
    def empty(*_):
        return torch.full((1, 10), torch.nan)

    monkeypatch.setattr(predict, "probabilities", empty)
    network = predict.Network(finished_once.run_folder("cnn"), torch.device("cpu"))
    with pytest.raises(UserError, match="not a number"):
        network.classify(digits[0][:1, None])


def test_a_network_of_unframed_images_sees_them_as_they_are(finished, digits, tmp_path):
    """A folder of the test set gets the recorded predictions, to the bit."""
    form = {"resize": None, "max_value": None, "framing": None}
    change_record(finished, classes=CLOTHES, form=form)
    for number, image in enumerate(digits[0]):
        path = tmp_path / "test" / str(number % 3) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "test/0/notes.txt").write_text("no image")
    done = run(finished, tmp_path / "test", "--csv", tmp_path / "new.csv")
    assert "1,000 images were classified" in done.stderr
    recorded = pd.read_csv(finished.run_folder("cnn") / "predictions.csv.gz")
    found = pd.read_csv(tmp_path / "new.csv", dtype={"confidence": np.float32})
    assert [CLOTHES[label] for label in recorded["prediction"]] == found["prediction"].tolist()
    assert (recorded["confidence"].astype(np.float32) == found["confidence"]).all()


def test_folders_and_patterns(finished_once, digits, tmp_path):
    for number in range(4):
        (tmp_path / "new").mkdir(exist_ok=True)
        Image.fromarray(digits[0][number]).save(tmp_path / "new" / f"{number}.png")
    names = [str(tmp_path / "new" / f"{number}.png") for number in range(4)]
    for named in (tmp_path / "new", tmp_path / "new/*.png"):
        lines = run(finished_once, named).stdout.splitlines()
        assert [line.partition(": ")[0] for line in lines if not line.startswith(" ")] == names
    for nothing in ("*.jpg", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        done = run(finished_once, tmp_path / nothing, check=False)
        assert done.returncode == 1
        assert f"{tmp_path / nothing}: there is no image" in done.stderr
