"""What a data set can be made of, and what people's files are like."""

import csv
import gzip
import io
import json
import os
import struct
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import prepare
from lib.core.errors import UserError
from lib.core.layout import images_file
from lib.data import catalog, decoded, readers
from lib.data.prepared import Dataset, grouped
from lib.data.survey import drawn, survey

RANDOM = np.random.default_rng(0)


def picture(path, mode="L", size=(8, 8), value=None, **options):
    """Write an image file of a mode: of one gray value, or else of random ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    pixels = RANDOM.integers(0, 256, shape) if value is None else np.full(shape, value)
    image = Image.fromarray(pixels.astype(np.uint8))
    image.convert(mode).save(path, **options)
    return path


def prepared(entry, **more):
    """Prepare an entry; return tensors, rows, audit."""
    entry = entry | more
    catalog.strict_yaml.check(entry, catalog.schema_of(readers.kind_of(entry)), "entry")
    reader = readers.open_reader(entry)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.safetensors")
        audit = prepare.prepare(path, "data", entry, reader, 2)
        assert len(list(path.parent.iterdir())) == 4  # nothing else is left there
        listed = gzip.decompress(images_file(path).read_bytes()).decode()
        return load_file(path), list(csv.DictReader(io.StringIO(listed, newline=""))), audit


@pytest.fixture
def folder(tmp_path):
    """Ten gray images of each of two classes, in folders of the classes."""
    for label in ("cat", "dog"):
        for index in range(10):
            picture(tmp_path / "pets" / label / f"{index}.png")
    return tmp_path / "pets"


def names(rows, split=None):
    return [row["file"] for row in rows if split in (None, row["split"])]


# ---- decoding that is cut off


def attempt(entry, path):
    return prepare.prepare(path, "data", entry, readers.open_reader(entry), 2)


@pytest.fixture
def cut_off(folder, tmp_path, capsys):
    """The entry of a folder of which one image was damaged, and what the first attempt has left."""
    damaged = folder / "dog" / "7.png"
    content, path = damaged.read_bytes(), tmp_path / "out" / "data.safetensors"
    entry = {"folder": str(folder), "test_share": 0.2}
    damaged.write_bytes(content[:-30])
    with pytest.raises(UserError, match=r"7\.png: it is truncated"):
        attempt(entry, path)
    damaged.write_bytes(content)
    capsys.readouterr()
    return entry, path


def assert_equal_to_one_attempt(entry, path):
    """Check that the files that were made in several attempts are those of a single one."""
    other = path.parent.with_name("at once") / path.name
    attempt(entry, other)
    assert path.read_bytes() == other.read_bytes()
    assert images_file(path).read_bytes() == images_file(other).read_bytes()


def test_only_what_is_missing_is_decoded(cut_off, capsys):
    entry, path = cut_off
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "data.decoded",
        "data.decoded.jsonl",
    ]
    attempt(entry, path)
    assert capsys.readouterr().out == "19 of 20 images are decoded already\n"
    assert_equal_to_one_attempt(entry, path)
    assert len(list(path.parent.iterdir())) == 4


def test_two_processes_that_decode_at_once(folder, tmp_path):
    """As when a job is taken for lost, and another one does its work."""
    path, entry = tmp_path / "out" / "data.safetensors", {"folder": str(folder), "test_share": 0.2}
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(attempt, entry, path) for _ in range(4)]:
            done.result()
    assert_equal_to_one_attempt(entry, path)


def test_pixels_that_change_before_they_are_written(cut_off, monkeypatch):
    """On a file system without locks."""
    entry, path = cut_off
    monkeypatch.setattr(decoded.fcntl, "flock", lambda *_: None)
    chosen = prepare.chosen

    def then_another_process_writes(*arguments):
        with path.with_name("data.decoded").open("r+b") as file:
            file.write(b"other pixels")
        return chosen(*arguments)

    monkeypatch.setattr(prepare, "chosen", then_another_process_writes)
    with pytest.raises(UserError, match=r"data.decoded was changed meanwhile: start again"):
        attempt(entry, path)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]\n[]\n", b"null\n", b"{}\n[1, 2]\n"])
def test_what_was_left_may_be_of_another_make(cut_off, content):
    entry, path = cut_off
    left = path.with_name("data.decoded.jsonl")
    first, *rest = left.read_bytes().split(b"\n")
    for text in (content, first + b"\n" + content + b"\n".join(rest)):
        left.write_bytes(text)
        attempt(entry, path)
        assert_equal_to_one_attempt(entry, path)
        left.parent.mkdir(exist_ok=True)


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["data.decoded", "data.decoded.jsonl"])
def test_what_was_left_may_be_damaged(cut_off, name, keep):
    entry, path = cut_off
    left = path.with_name(name)
    content = bytearray(left.read_bytes())[: int(keep * left.stat().st_size)]
    content[-5] ^= 1
    left.write_bytes(content)
    attempt(entry, path)
    assert_equal_to_one_attempt(entry, path)


@pytest.mark.parametrize(
    ("change", "again"),
    [({"image_size": [4, 4]}, 20), ({"test_share": 0.5}, 1), ({"channels": 3}, 20)],
)
def test_of_another_form_all_is_decoded(cut_off, change, again, monkeypatch):
    entry, path = cut_off
    calls = []
    decode = decoded.pixels_of
    monkeypatch.setattr(decoded, "pixels_of", lambda *each: calls.append(each) or decode(*each))
    attempt(entry | change, path)
    assert len(calls) == again


def test_what_an_array_gives_is_that_of_its_whole_entry(tmp_path, capsys):
    """Its images have no files of their own: whatever the entry says may decide which they are."""
    content = {name: each for name, each in arrays().items() if "train" in name}
    content["x_train"][1:] = content["x_train"][0]
    np.savez(tmp_path / "all.npz", **content)
    path = tmp_path / "out" / "data.safetensors"
    entry = {"arrays": str(tmp_path / "all.npz"), "test_share": 0.5}
    for _ in range(2):
        with pytest.raises(UserError, match="training images are in the test set"):
            attempt(entry, path)  # after decoding
    assert capsys.readouterr().out == "6 of 6 images are decoded already\n"
    attempt(entry | {"test_share": 0.4, "duplicates": "keep"}, path)
    assert not capsys.readouterr().out


def test_an_image_that_has_changed_is_decoded_again(cut_off, folder):
    entry, path = cut_off
    picture(folder / "cat" / "3.png")
    attempt(entry, path)
    assert_equal_to_one_attempt(entry, path)


# ---- folders of classes


def test_folders_of_classes(folder):
    tensors, rows, audit = prepared({"folder": str(folder), "test_share": 0.2})
    assert tensors["train_images"].shape == (16, 1, 8, 8)
    assert tensors["test_labels"].tolist().count(0) == tensors["test_labels"].tolist().count(1) == 2
    assert audit.classes["test"] == {"cat": 2, "dog": 2}
    for row, image in zip(rows, [*tensors["train_images"], *tensors["test_images"]], strict=True):
        assert np.array_equal(np.asarray(Image.open(folder / row["file"])), image[0])
        assert row["label"] == row["file"].split("/")[0]


def test_folders_of_splits(tmp_path):
    for split, label, count in (("train", "a", 3), ("train", "b", 2), ("Test", "a", 1)):
        for index in range(count):
            picture(tmp_path / split / label / f"{index}.JPG", "RGB")
    (tmp_path / "doc").mkdir()
    (tmp_path / "train" / "labels.csv").write_text("what the images are")
    tensors, rows, audit = prepared({"folder": str(tmp_path)})
    assert tensors["train_images"].shape == (5, 3, 8, 8)
    assert names(rows, "test") == ["Test/a/0.JPG"]
    assert audit.notes == [
        "1 folders beside the splits: doc", "1 files are no images of a class: train/labels.csv",
        "no image for testing is of b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        (("train", "valid"), {"train"}, {"valid"}),
        (("train", "val", "test"), {"train", "val"}, {"test"}),
    ],
)
def test_a_folder_for_validation(tmp_path, splits, train, test):
    for split in splits:
        for label in "ab":
            picture(tmp_path / split / label / "0.png")
    _, rows, audit = prepared({"folder": str(tmp_path)})
    assert {name.split("/")[0] for name in names(rows, "train")} == train
    assert {name.split("/")[0] for name in names(rows, "test")} == test
    assert any("the images for validation are used for" in line for line in audit.lines())


WRONG_SPLITS = {
    ("test", "val"): "there must be one folder train",
    ("train", "training", "test"): "there must be one folder train",
    ("train", "holdout"): "the folder of the test images must be called test",
}


@pytest.mark.parametrize("splits", WRONG_SPLITS)
def test_folders_of_splits_that_are_wrong(tmp_path, splits):
    for split in splits:
        for label in "ab":
            picture(tmp_path / split / label / "0.png")
    with pytest.raises(UserError, match=WRONG_SPLITS[splits]):
        prepared({"folder": str(tmp_path), "test_share": 0.5})


def test_a_class_may_be_called_like_a_split(tmp_path):
    for label in ("train", "bus"):
        for index in range(4):
            picture(tmp_path / label / f"{index}.png")
    _, _, audit = prepared({"folder": str(tmp_path), "test_share": 0.5})
    assert audit.classes["test"] == {"bus": 2, "train": 2}


def test_the_list_of_images_tells_a_change_from_none(folder):
    entry = {"folder": str(folder), "test_share": 0.2}

    def listed():
        return readers.listing_sha256(readers.open_reader(entry))

    before = listed()
    (folder / "cat/.DS_Store").write_bytes(b"x")
    assert listed() == before
    picture(folder / "cat/0.png", size=(9, 9))
    assert listed() != before


def test_a_class_that_loses_all_its_images(folder):
    for index in range(10):
        (folder / f"cat/{index}.png").write_bytes(b"x")
    entry = {"folder": str(folder), "test_share": 0.2, "unreadable": "skip"}
    with pytest.raises(UserError, match="classes: 'cat' has no training image, only 0 for testing"):
        prepared(entry)


def test_what_is_no_image_and_no_class(folder):
    for name in (".DS_Store", "cat/Thumbs.db", "cat/._0.png", "cat/.ipynb_checkpoints/0.png",
                 "__MACOSX/cat/0.png", ".git/x.png", "dog/notes.txt", "labels.csv"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"junk")
    _, rows, audit = prepared({"folder": str(folder), "test_share": 0.2})
    assert len(rows) == 20
    assert audit.notes == [
        "2 files are no images of a class: labels.csv, dog/notes.txt",
        "test_share: 0.2 of each class is for testing",
    ]


def test_odd_names_links_and_nested_folders(tmp_path):
    root = tmp_path / "data"
    odd = ["a b,c.png", 'q"uote.png', "ä \u4e2d.png", "nested/deep/0.png", "UPPER.PNG", "10.jpeg"]
    for label in ("e l", "é"):
        for name in odd:
            picture(root / label / name)
    picture(tmp_path / "elsewhere/linked.png")
    (root / "e l/link.png").symlink_to(tmp_path / "elsewhere/linked.png")
    (root / "é/more").symlink_to(tmp_path / "elsewhere")
    (root / "é/circle").symlink_to(root / "é")
    _, rows, _ = prepared({"folder": str(root), "test_share": 0.3})
    assert sorted(names(rows)) == sorted(
        [f"{label}/{name}" for label in ("e l", "é") for name in odd]
        + ["e l/link.png", "é/more/linked.png"]
    )


def test_exported_numbers_have_the_order_of_the_set(tmp_path):
    labels = [3, 1, 3, 2, 1, 2, 3, 1, 1, 2, 3, 3]
    for index, label in enumerate(labels):
        for split in ("train", "test"):
            picture(tmp_path / split / str(label) / f"{index}.png")
    tensors, _, _ = prepared({"folder": str(tmp_path)}, duplicates="keep")
    assert (tensors["train_labels"] + 1).tolist() == labels


# ---- what is said of a folder that is wrong, in one list

WRONG_FOLDERS = {
    "no such folder": (lambda f: None, {"folder": "nowhere"}, ["there is no folder nowhere"]),
    "a file": (lambda f: None, {"folder": __file__}, ["is a file, not a folder"]),
    "an empty class": (
        lambda f: [(f / name).mkdir() for name in ("eel", "fox")],
        {},
        ["there is no image in the class", "pets/eel: remove it", "pets/fox: remove it"],
    ),
    "no share": (lambda f: None, {"test_share": None}, ["Set a share, such as test_share: 0.2"]),
    "a class named all": (lambda f: picture(f / "all/0.png"), {}, ["'all' is the last row"]),
    "several sizes": (
        lambda f: picture(f / "cat/x.png", size=(20, 9)),
        {},
        ["image_size: the images have 2 sizes, from 8 x 8 (", "to 9 x 20 (cat/x.png)"],
    ),
    "unreadable files": (
        lambda f: [(f / f"cat/x{n}.png").write_bytes(b"x" * n) for n in range(15)],
        {},
        ["15 of 35 images cannot be read", "unreadable: skip", "cat/x0.png: it is empty",
         "cat/x1.png: it is not an image of a known format", "... and 6 more"],
    ),
    "a truncated file": (
        lambda f: (f / "cat/0.png").write_bytes((f / "cat/0.png").read_bytes()[:60]),
        {},
        ["1 of 20 images cannot be read", "cat/0.png: it is truncated or damaged"],
    ),
    "a copy in the test set": (
        lambda f: [picture(f / f"{name}/same{n}.png", value=9) for name in ("cat", "dog")
                   for n in range(9)],
        {},
        ["training images are in the test set, too", "duplicates: drop"],
    ),
    "a class that is not there": (
        lambda f: None,
        {"classes": ["cat", "cow"]},
        ["no image is of 'cow'; there are: cat, dog", "there are images of others: dog (10)"],
    ),
    "an odd pattern": (lambda f: None, {"group": "("}, ["is not a regular expression"]),
    "a pattern that does not fit": (
        lambda f: None, {"group": "(cat)"}, ["'(cat)' does not fit 'dog/0.png'", "dog/9.png"]
    ),
    "a column": (lambda f: None, {"group": "patient"}, ["the data has no column 'patient'"]),
    "a pattern whose group is empty": (
        lambda f: None, {"group": "(?:cat|(dog))/"}, ["does not fit 'cat/0.png'"]
    ),
    "a name that is not UTF-8": (
        lambda f: (f / "cat" / os.fsdecode(b"\xff.png")).write_bytes(b""), {}, ["not valid UTF-8"]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("do", "change", "said"), WRONG_FOLDERS.values(), ids=WRONG_FOLDERS)
def test_a_folder_that_is_wrong(folder, do, change, said):
    do(folder)
    entry = {"folder": str(folder), "test_share": 0.4} | change
    entry = {key: value for key, value in entry.items() if value is not None}
    with pytest.raises(UserError) as failure:
        prepared(entry)
    for words in said:
        assert words in str(failure.value)


def test_unreadable_files_are_left_out_and_listed(folder):
    for index in range(3):
        (folder / f"cat/bad{index}.png").write_bytes(b"x")
    entry = {"folder": str(folder), "test_share": 0.2, "unreadable": "skip"}
    _, rows, audit = prepared(entry)
    assert len(rows) == 20
    assert set(audit.unreadable) == {f"cat/bad{index}.png" for index in range(3)}
    assert "3 files were left out: cat/bad0.png, cat/bad1.png, cat/bad2.png" in audit.lines()


def test_copies_are_dropped_from_the_training_set_or_kept(folder):
    for label in ("cat", "dog"):
        for index in range(9):
            picture(folder / label / f"same{index}.png", value=9)
    entry = {"folder": str(folder), "test_share": 0.4}
    kept, _, audit = prepared(entry, duplicates="keep")
    assert (len(kept["train_images"]) + len(kept["test_images"]), audit.dropped) == (38, 0)
    dropped, _, audit = prepared(entry, duplicates="drop")
    same = (dropped["train_images"] == 9).all(dim=(1, 2, 3))
    assert not same.any()
    assert len(dropped["test_images"]) == len(kept["test_images"])
    assert (
        audit.dropped
        == audit.leaked
        == 38 - len(dropped["train_images"]) - len(dropped["test_images"])
    )
    assert len(audit.constant) == audit.repeated["test"] + 1
    assert set(audit.contradicting) == set(audit.constant)  # the same image is a cat, and a dog


# ---- groups


def test_groups_stay_whole_in_both_divisions(tmp_path):
    for patient in range(20):
        for index in range(patient % 5 + 1):
            picture(tmp_path / "xy"[patient % 2] / f"p{patient:02}_{index}.png")
    entry = {"folder": str(tmp_path), "test_share": 0.3, "group": "(p[0-9]+)_"}
    tensors, rows, audit = prepared(entry)
    groups = {
        split: {r["group"] for r in rows if r["split"] == split} for split in ("train", "test")
    }
    assert groups["test"]
    assert not groups["train"] & groups["test"]
    assert not audit.groups_in_both
    assert 0.2 < len(names(rows, "test")) / len(rows) < 0.4
    labels, of = tensors["train_labels"], tensors["train_groups"]
    mask = grouped(labels, of, 10)
    assert 7 <= mask.sum() <= 13
    assert not np.isin(of[mask], of[~mask]).any()
    dataset = Dataset(**tensors, classes=["x", "y"])
    training, validation = dataset.train_and_validation(10 / len(labels))
    assert (len(training), len(validation)) == (len(labels) - mask.sum(), mask.sum())
    assert len(dataset.train_and_validation(0.001)[1]) == 1
    with pytest.raises(UserError, match="validation_size: about 1 of"):
        grouped(torch.arange(20) % 2, torch.arange(20) // 10, 1)


def test_groups_that_are_large_for_their_classes():
    """Each of 50 classes has three groups of two images, and a tenth of the images is wanted."""
    labels = torch.arange(50).repeat_interleave(6)
    groups = torch.arange(150).repeat_interleave(2)
    mask = grouped(labels, groups, 30)
    assert mask.sum() == 30
    assert torch.bincount(labels[mask]).max() == 2
    assert torch.equal(mask, grouped(labels, groups, 30))


def test_no_class_is_held_out_as_a_whole():
    labels = torch.arange(10).repeat_interleave(10)
    groups = torch.where(labels < 3, labels, labels * 100 + torch.arange(100) // 2)
    mask = grouped(labels, groups, 20)
    assert torch.bincount(labels[~mask], minlength=10).all()
    assert 10 <= mask.sum() <= 20


# ---- kinds of image files


def gray_and_color(root):
    """A file of each mode, of one gray value, so that it is known what is right."""
    root.mkdir()
    base = np.full((8, 8, 3), 100, np.uint8)
    rgb, gray = Image.fromarray(base), Image.fromarray(base[..., 0])
    half = Image.new("L", (8, 8), 0)
    rgba, la = rgb.copy(), gray.copy()
    rgba.putalpha(half)
    la.putalpha(half)
    palette = rgb.quantize(4)
    return {
        "rgb.png": (rgb, 100), "gray.png": (gray, 100), "rgba.png": (rgba, 255),
        "la.png": (la, 255), "cmyk.jpg": (rgb.convert("CMYK"), 100), "gray.jpeg": (gray, 100),
        "one.png": (Image.new("1", (8, 8), 1), 255), "palette.gif": (palette, 100),
        "page.tiff": (gray, 100), "web.webp": (rgb, 100), "UP.JPG": (gray, 100),
    }  # fmt: skip


def test_each_mode_is_right(tmp_path):
    files = gray_and_color(tmp_path / "a")
    for name, (image, _) in files.items():
        image.save(tmp_path / "a" / name)
    transparent = Image.new("P", (8, 8), 0)
    transparent.putpalette([10, 200, 30] + [0] * 765)
    transparent.save(tmp_path / "a/clear.png", transparency=0)
    frames = [Image.new("L", (8, 8), value) for value in (40, 200)]
    frames[0].save(tmp_path / "a/film.gif", save_all=True, append_images=frames[1:])
    picture(tmp_path / "b/0.png")
    entry = {"folder": str(tmp_path), "test_share": 0.1, "channels": 1, "duplicates": "keep"}
    tensors, rows, audit = prepared(entry)
    images = [*tensors["train_images"], *tensors["test_images"]]
    found = {row["file"]: image for row, image in zip(rows, images, strict=True)}
    expected = {name: value for name, (_, value) in files.items()}
    for name, value in (expected | {"clear.png": 255, "film.gif": 40}).items():
        pixels = found[f"a/{name}"].numpy()
        assert abs(int(pixels.min()) - value) < 3, name
        assert abs(int(pixels.max()) - value) < 3, name
    assert audit.converted["transparent, put on white"] == 3
    assert audit.converted["first of several frames"] == 1
    assert audit.converted["CMYK to RGB"] == 1


def test_mixed_files_become_color(tmp_path):
    for label in "ab":
        picture(tmp_path / label / "0.png", "L")
        picture(tmp_path / label / "1.png", "RGB")
    tensors, _, audit = prepared({"folder": str(tmp_path), "test_share": 0.5})
    assert tensors["train_images"].shape[1] == 3
    assert audit.converted == {"gray to color": 2}


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    pixels = RANDOM.integers(0, 256, (4, 9), dtype=np.uint8)
    for label in "ab":
        for index in range(2):
            path = tmp_path / label / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            turned = Image.fromarray(np.rot90(pixels + index + (label == "b") * 7))
            exif = Image.Exif()
            exif[0x0112] = 6  # show it turned to the right by 90 degrees
            turned.save(path, exif=exif)
    tensors, _, audit = prepared({"folder": str(tmp_path), "test_share": 0.5})
    assert tensors["train_images"].shape == (2, 1, 4, 9)
    shown = [each[0] - each[0, 0, 0] + pixels[0, 0] for each in tensors["test_images"].numpy()]
    assert all(np.array_equal(each, pixels) for each in shown)
    assert audit.converted == {"turned as its camera says": 4}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_the_shape_is_that_of_the_pixels(kind, orientation):
    from lib.data.pixels import Form, pixels_of, shape_of

    stored = np.zeros((16, 48), np.uint8)
    stored[:, :24] = 255
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(content, kind, exif=exif)
    shape, (pixels, _) = shape_of(content.getvalue()), pixels_of(content.getvalue(), Form())
    assert shape == pixels.shape
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    assert np.abs(pixels[0].astype(int) - np.rot90(stored, turns)).max() < 9


def test_a_bitmap_with_a_palette(tmp_path):
    for label in "ab":
        for index in range(2):
            image = Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)).quantize(10)
            (tmp_path / label).mkdir(exist_ok=True)
            image.save(tmp_path / label / f"{index}.bmp")
    tensors, rows, _ = prepared({"folder": str(tmp_path), "test_share": 0.5})
    for row, pixels in zip(rows[:2], tensors["train_images"], strict=True):
        expected = np.asarray(Image.open(tmp_path / row["file"]).convert("RGB"))
        assert np.array_equal(np.moveaxis(pixels.numpy(), 0, 2), expected)


def sixteen_bit_rgb() -> bytes:
    """Return a PNG file of 2 x 1 pixels with 16 bits per color, which Pillow cannot write."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">6H", *range(1000, 7000, 1000))))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


def test_sixteen_bits_per_color_are_reduced_and_counted(folder):
    (folder / "cat/deep.png").write_bytes(sixteen_bit_rgb())
    entry = {"folder": str(folder), "test_share": 0.2, "image_size": [1, 2], "channels": 3}
    tensors, rows, audit = prepared(entry)
    assert audit.converted["16 bits per color, of which the higher 8 were taken"] == 1
    images = [*tensors["train_images"], *tensors["test_images"]]
    (pixels,) = (i for i, row in zip(images, rows, strict=True) if row["file"] == "cat/deep.png")
    assert pixels.permute(1, 2, 0).flatten().tolist() == [3, 7, 11, 15, 19, 23]


def test_sixteen_bits_need_max_value(tmp_path):
    for label, value in (("a", 1000), ("b", 4095)):
        for index in range(2):
            path = tmp_path / label / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 4), value - index, np.uint16)).save(path)
    entry = {"folder": str(tmp_path), "test_share": 0.5, "duplicates": "keep"}
    with pytest.raises(UserError, match=r"a/0.png: it has more than 8 bits, .* set max_value"):
        prepared(entry)
    with pytest.raises(
        UserError, match="values are from 4095 to 4095, not from 0 to max_value, 4000"
    ):
        prepared(entry, max_value=4000)
    tensors, _, _ = prepared(entry, max_value=4095)
    assert {int(each.max()) for each in tensors["train_images"]} == {62, 255}


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(30, 50), (50, 30), (9, 200), (64, 64), (5, 5)])
def test_images_of_any_size_are_scaled_as_torchvision_does(resize, size):
    from torchvision.transforms import v2

    from lib.data.pixels import Form, pixels_of

    image = Image.fromarray(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8))
    found, done = pixels_of(np.asarray(image), Form((32, 32), 3, resize))
    assert done == ["scaled from another size"]
    assert found.shape == (3, 32, 32)
    expected = {
        "crop": v2.Compose([v2.Resize(32), v2.CenterCrop(32)]), "stretch": v2.Resize((32, 32)),
    }  # fmt: skip
    if resize in expected:
        assert np.array_equal(found, np.moveaxis(np.asarray(expected[resize](image)), 2, 0))
    else:
        height, width = size
        inside = 32 * min(height, width) // max(height, width) or 1
        assert abs(int(found.any(axis=(0, 2)).sum()) - (inside if height < width else 32)) <= 1
        assert abs(int(found.any(axis=(0, 1)).sum()) - (inside if width < height else 32)) <= 1


# ---- tables

ROWS = [("a/0.png", "no"), ("a/1.png", "yes"), ("b 2.png", "no"), ("3.png", "yes")]


def table(folder, text, encoding="utf-8", name="labels.csv"):
    for path, _ in ROWS:
        picture(folder / path)
    (folder / name).write_bytes(text.encode(encoding))
    return {"table": str(folder / name), "test_share": 0.5}


def lines(delimiter, header=True, end="\n"):
    rows = [("path", "label"), *ROWS] if header else ROWS
    return end.join(delimiter.join(row) for row in rows) + end


TABLES = {
    "commas": (lines(","), "utf-8", {}),
    "semicolons": (lines(";"), "utf-8", {}),
    "tabs": (lines("\t"), "utf-8", {}),
    "a mark at the beginning": (lines(","), "utf-8-sig", {}),
    "CRLF": (lines(",", end="\r\n"), "utf-8", {}),
    "delimiters in quotes": ('"path";"label"\n"a/0.png";no\na/1.png;yes\nb 2.png;no\n3.png;yes\n',
                             "utf-8", {}),
    "quotes": ('path,label\n"a/0.png",no\n"a/1.png","yes"\nb 2.png,no\n3.png,yes\n', "utf-8", {}),
    "empty lines": (lines(",").replace("\n", "\n\n") + "\n\n", "utf-8", {}),
    "other names": (
        lines(",").replace("path,label", "file,good"), "utf-8",
        {"columns": {"path": "file", "label": "good"}},
    ),
    "no header": (lines(",", header=False), "utf-8", {"columns": {"path": 1, "label": 2}}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "encoding", "more"), TABLES.values(), ids=TABLES)
def test_tables_of_any_look(tmp_path, text, encoding, more):
    entry = table(tmp_path, text, encoding) | more
    _, rows, _ = prepared(entry)
    assert sorted((row["file"], row["label"]) for row in rows) == sorted(ROWS)


def test_blanks_between_columns_and_classes_of_values(tmp_path):
    """As in the table of the solar cells."""
    rows = "0.png  1.0  mono\n1.png  0.3333333333333333  poly\n2.png  0.0 mono\n"
    rows += "3.png 1  poly\n4.png 0 x\n"
    for index in range(5):
        picture(tmp_path / f"{index}.png")
    (tmp_path / "labels.csv").write_text(rows)
    entry = {
        "table": str(tmp_path / "labels.csv"), "columns": {"path": 1, "label": 2, "group": 3},
        "classes": {"functional": [0], "defective": [1.0]}, "test_share": 0.5,
    }  # fmt: skip
    reader = readers.open_reader(entry)
    found = survey(reader, entry | {"test_share": 0.4})
    assert found.classes == ["functional", "defective"]
    assert {item.name for item in found.items} == {"0.png", "2.png", "3.png", "4.png"}
    assert "1 images are of none of the classes: 0.3333333333333333 (1)" in found.notes
    assert {item.group for item in found.items} == {"mono", "poly", "x"}


def test_latin_1_is_said(tmp_path):
    entry = table(tmp_path, lines(",").replace("yes", "für"), "latin-1")
    _, rows, audit = prepared(entry)
    assert {row["label"] for row in rows} == {"no", "für"}
    assert any("read as Latin-1" in note for note in audit.notes)


def test_a_column_says_the_split(tmp_path):
    splits = ("Train", "test", "test", "training")
    text = "path,label,split\n" + "".join(
        f"{path},{label},{split}\n" for (path, label), split in zip(ROWS, splits, strict=True)
    )
    entry = table(tmp_path, text)
    del entry["test_share"]
    _, rows, _ = prepared(entry)
    assert names(rows, "test") == ["a/1.png", "b 2.png"]
    with pytest.raises(UserError, match="the data says itself which images are for testing"):
        prepared(entry, test_share=0.5)


WRONG_TABLES = {
    "no such column": ("file,class\n0.png,a\n", ["no column 'path'", "no column 'label'",
                       "its first line is: file, class", "{path: 1, label: 2}"]),
    "no label": ("path,label\n3.png,\n,b\n", ["line 2: no label", "line 3: no path"]),
    "a row that is too short": ("path,label\n3.png\n", ["line 2: it has 1 columns, not 2"]),
    "a row that is too long": ("path,label\n3.png,dog, big\n", ["line 2: it has 3 columns, not 2"]),
    "an open quote": ('path,label\n3.png,"dog\na/0.png,cat\n', ["labels.csv, line 3: "]),
    "not a number": ("path,label\n3.png,nan\n", ["line 2: no label"]),
    "no group": ("path,label,group\n3.png,a,\n", ["line 2: no group"]),
    "a name twice": (lines(",") + "./3.png,no\n", ["line 6: ./3.png is in line 5 already"]),
    "twice": (lines(",") + "3.png,no\n", ["line 6: 3.png is in line 5 already"]),
    "a split": ("path,label,split\n3.png,a,rest\n", ["line 2: the split 'rest' is not train"]),
    "empty": ("", ["labels.csv is empty"]),
    "only a header": ("path,label\n", ["has no rows"]),
    "missing files": (lines(",") + "x.png,no\n", ["1 of 5 images cannot", "x.png: No such file"]),
    "one class": ("path,label\n3.png,a\na/0.png,a\n", ["classes: there is only one, 'a'"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_a_table_that_is_wrong(tmp_path, text, said):
    with pytest.raises(UserError) as failure:
        prepared(table(tmp_path, text))
    for words in said:
        assert words in str(failure.value)


LABELS = {
    "numbers": (["10", "2", "1"], None, ["1", "2", "10"]),
    "floats": (["1.0", "0.5", "-2"], None, ["-2", "0.5", "1.0"]),
    "words": (["b", "c", "a"], None, ["a", "b", "c"]),
    "zeros in front": (["007", "07x", "1e3"], None, ["007", "07x", "1e3"]),
    "a list": (["b", "c", "a"], ["c", "a", "b"], ["c", "a", "b"]),
    "numbers of a mapping": (["0.0", "1", "2"], {"no": [0], "yes": [1.0]}, ["no", "yes"]),
    "booleans of a mapping": (["True", "False"], {"no": [False], "yes": [True]}, ["no", "yes"]),
    "large": ([str(10**20), str(10**20 + 1)], None, [str(10**20), str(10**20 + 1)]),
}


def surveyed(labels, classes):
    splits = ["train"] * len(labels) + ["test"] * len(labels)
    items = [
        readers.Item(f"{index}", label, split)
        for index, (label, split) in enumerate(zip(labels * 2, splits, strict=True))
    ]
    reader = type("Reader", (), {"items": items, "notes": []})
    return survey(reader, {"classes": classes} if classes else {})


@pytest.mark.parametrize(("labels", "classes", "expected"), LABELS.values(), ids=LABELS)
def test_the_order_of_classes(labels, classes, expected):
    assert surveyed(labels, classes).classes == expected


ALIKE = {
    "a number": (["1", "1.0", "2"], None, "'1' and '1.0' seem to be the same"),
    "a zero in front": (["01", "1", "2"], None, "'01' and '1' seem to be the same"),
    "a word": (["Cat", "cat", "dog"], None, "'Cat' and 'cat' seem to be the same"),
    "two classes": (["1", "2", "3"], {"a": [1, 2], "b": [2, 3]}, "'2' is in two classes"),
}


@pytest.mark.parametrize(("labels", "classes", "said"), ALIKE.values(), ids=ALIKE)
def test_labels_are_never_merged_in_silence(labels, classes, said):
    with pytest.raises(UserError, match=said):
        surveyed(labels, classes)


# ---- arrays


def arrays(count=6, shape=(8, 8), dtype=np.uint8):
    images = {
        f"x_{s}": RANDOM.integers(0, 256, (count, *shape)).astype(dtype) for s in ("train", "test")
    }
    labels = {f"y_{split}": np.arange(count) % 2 for split in ("train", "test")}
    return images | labels


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8), (8, 8, 3), (3, 8, 8)])
@pytest.mark.parametrize("single", [True, False])
def test_arrays(tmp_path, shape, single):
    content = arrays(shape=shape)
    np.savez(tmp_path / "all.npz", **content)
    for name, each in content.items():
        np.save(tmp_path / f"{name}.npy", each)
    source = {name: str(tmp_path / f"{name}.npy") for name in content}
    tensors, rows, _ = prepared({"arrays": str(tmp_path / "all.npz") if single else source})
    expected = content["x_train"].reshape(6, 1, 8, 8) if 3 not in shape else content["x_train"]
    expected = np.moveaxis(expected, 3, 1) if shape == (8, 8, 3) else expected
    assert np.array_equal(tensors["train_images"], expected)
    assert tensors["test_labels"].tolist() == [0, 1] * 3
    assert names(rows)[6] == "x_test[0]"


def test_arrays_without_a_test_set_and_of_floats(tmp_path):
    content = {"x_train": RANDOM.random((10, 4, 4)), "y_train": np.array(["u", "v"] * 5)}
    np.savez(tmp_path / "all.npz", **content)
    entry = {"arrays": str(tmp_path / "all.npz"), "test_share": 0.2, "max_value": 1}
    tensors, _, _ = prepared(entry)
    assert len(tensors["test_images"]) == 2


WRONG_ARRAYS = {
    "labels": ({"y_train": np.zeros(5, int)}, r"y_train is \[5\], for 6 images"),
    "a shape": ({"x_train": np.zeros((6, 64), np.uint8)}, r"x_train is \[6, 64\], not \[N, height"),
    "missing": ({"y_test": None}, "there is no y_test, only"),
    "objects": ({"y_train": np.array([{}] * 6)}, "cannot read y_train in .*Object arrays"),
    "text": ({"x_train": np.full((6, 8, 8), "x")}, "x_train is of <U1, which are no pixels"),
    "no number": ({"y_train": np.array([0, 1, np.nan] * 2)}, r"y_train\[2\] is no label"),
    "other names": (dict.fromkeys(arrays()) | {"data": np.zeros(3)}, "there is none of x_train"),
    "sizes": ({"x_test": np.zeros((6, 9, 9), np.uint8)}, "image_size: the images have 2 sizes"),
}


@pytest.mark.parametrize(("change", "said"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_arrays_that_are_wrong(tmp_path, change, said):
    content = {name: each for name, each in (arrays() | change).items() if each is not None}
    np.savez(tmp_path / "all.npz", **content)
    with pytest.raises(UserError, match=said):
        prepared({"arrays": str(tmp_path / "all.npz")})


def test_files_of_numpy_of_the_other_kind(tmp_path):
    for name, each in arrays().items():
        np.save(tmp_path / f"{name}.npy", each)
    np.savez(tmp_path / "all.npz", **arrays())
    with pytest.raises(UserError, match=r"x_train.npy holds one array: name x_train, y_train"):
        prepared({"arrays": str(tmp_path / "x_train.npy")})
    both = {"x_train": str(tmp_path / "all.npz"), "y_train": str(tmp_path / "y_train.npy")}
    with pytest.raises(UserError, match=r"arrays.x_train: .* holds several arrays"):
        prepared({"arrays": both, "test_share": 0.5})


def test_arrays_of_medmnist(tmp_path):
    content = {}
    for split, count in (("train", 6), ("val", 4), ("test", 2)):
        content[f"{split}_images"] = RANDOM.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        content[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(tmp_path / "all.npz", more=np.zeros(1), **content)
    tensors, rows, audit = prepared({"arrays": str(tmp_path / "all.npz")})
    assert [len(tensors[f"{split}_images"]) for split in ("train", "test")] == [10, 2]
    assert names(rows, "train")[6] == "val_images[0]"
    assert audit.notes[0] == "arrays that are not used: more"
    assert "used for training" in audit.notes[1]


# ---- Parquet files


def parquet(path, names=("cat", "dog"), count=12, column="image"):
    """Write a file as the datasets library of the Hugging Face Hub does."""
    pyarrow = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table

    images = []
    for _ in range(count):
        content = io.BytesIO()
        Image.fromarray(RANDOM.integers(0, 256, (8, 8), dtype=np.uint8)).save(content, "PNG")
        images.append({"bytes": content.getvalue(), "path": None})
    table = pyarrow.table({column: images, "label": [index % 2 for index in range(count)]})
    features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write(table, path, row_group_size=5)
    return images


def test_parquet_files_of_the_hub(tmp_path):
    images = parquet(tmp_path / "data/train-00000-of-00001.parquet")
    parquet(tmp_path / "data/test-00000-of-00001.parquet", count=4)
    tensors, rows, audit = prepared({"parquet": str(tmp_path / "data")})
    assert audit.classes == {"train": {"cat": 6, "dog": 6}, "test": {"cat": 2, "dog": 2}}
    for image, pixels in zip(images, tensors["train_images"], strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(image["bytes"]))), pixels[0])
    assert names(rows)[7] == "train-00000-of-00001.parquet[7]"


def test_one_parquet_file_is_divided(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    parquet(path, column="img")
    entry = {"parquet": str(path), "test_share": 0.5}
    with pytest.raises(UserError, match="has no column 'image', only img, label"):
        prepared(entry)
    tensors, _, _ = prepared(entry | {"columns": {"image": "img"}})
    assert len(tensors["test_images"]) == 6
    content = path.read_bytes()
    for damage in range(4, 400, 4):  # in the pages of its columns
        path.write_bytes(content[:damage] + b"\xff\xff\xff\xff" + content[damage + 4 :])
        try:
            prepared(entry | {"columns": {"image": "img"}})
        except UserError as error:
            assert str(error)
    path.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"parquet: cannot read .*parquet"):
        prepared(entry)


def test_a_table_in_a_parquet_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    write = pytest.importorskip("pyarrow.parquet").write_table

    entry = table(tmp_path, "", name="labels.parquet")
    columns = {"path": [row[0] for row in ROWS], "label": [row[1] for row in ROWS]}
    write(pyarrow.table(columns), tmp_path / "labels.parquet")
    _, rows, _ = prepared(entry)
    assert sorted((row["file"], row["label"]) for row in rows) == sorted(ROWS)
    columns["label"][1] = None
    write(pyarrow.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(UserError, match="line 2: no label"):
        prepared(entry)
    (tmp_path / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"table: cannot read .*labels.parquet"):
        prepared(entry)


# ---- entries

WRONG_ENTRIES = {
    "no kind": ({"image_size": [8, 8]}, "it has none of arrays, files, folder"),
    "two kinds": ({"folder": "x", "table": "y"}, "it has folder and table"),
    "an unknown key": ({"folder": "x", "test_shar": 0.2}, "unknown key 'test_shar'; did you mean"),
    "a share": ({"folder": "x", "test_share": 1.5}, "test_share: 1.5"),
    "a key of another kind": ({"folder": "x", "columns": {}}, "unknown key 'columns'"),
    "four channels": ({"folder": "x", "channels": 4}, "channels: 4 is not known"),
    "one class": ({"folder": "x", "classes": ["a"]}, "classes: "),
}


@pytest.mark.parametrize(("entry", "said"), WRONG_ENTRIES.values(), ids=WRONG_ENTRIES)
def test_an_entry_that_is_wrong(tmp_path, entry, said):
    path = tmp_path / "datasets.yaml"
    path.write_text(json.dumps({"Mine": entry}))
    with pytest.raises(UserError) as failure:
        catalog.load(path, "Mine")
    assert str(failure.value).startswith(f"{path}: Mine: ")
    assert said in str(failure.value)


def test_the_order_of_a_division_does_not_change():
    """It is a part of the identity of the data: a change would make all results out of date."""
    assert "".join(sorted("abcdefgh", key=drawn)) == "eghbfacd"
