"""Whatever is in a folder, a table, or a file of arrays: one message, or the right data.

What is prepared is compared with what Pillow and numpy read from the same files.
"""

import csv
import gzip
import io
import json
import shutil
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from budget import seconds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

import prepare
from lib.core.errors import UserError
from lib.core.layout import audit_file, images_file
from lib.data import readers
from lib.data.facts import facts_of

CLASSES = ("cat", "dog", "1.0")
IMAGES = 4  # of each class
SHAPE = (6, 5)
NAMES = [
    "ä, b.png",
    " .png",
    "x.PNG",
    ".hidden.png",
    "Thumbs.db",
    "a\nb.png",
    "train",
    "0.jpg",
    "-n",
]
CELLS = [
    "",
    "nan",
    "cat",
    "CAT",
    "1",
    "1.0",
    "true",
    "../cat/0.png",
    "/etc/hostname",
    "cat/0.png",
    "é",
    "a,b",
    '"',
    "\x00",
]
places = st.floats(0, 1, exclude_max=True)  # in a file or a list, as a share of its length


def pixels(number: int) -> np.ndarray:
    """Return an image that no other is equal to."""
    return np.random.default_rng(number).integers(256, size=SHAPE, dtype=np.uint8)


def write_images(folder: Path) -> list[tuple[str, str]]:
    """Write the images of all classes; return their files and labels."""
    rows = []
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for number in range(IMAGES):
            name = f"{label}/{number}.png"
            Image.fromarray(pixels(len(rows))).save(folder / name)
            rows.append((name, label))
    return rows


def folder_of_classes(folder: Path) -> dict:
    write_images(folder)
    return {"folder": str(folder)}


def table(folder: Path) -> dict:
    rows = write_images(folder)
    lines = [
        "path,label,group",
        *(f"{name},{label},{name[0]}{n}" for n, (name, label) in enumerate(rows)),
    ]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"table": str(folder / "labels.csv")}


def arrays(folder: Path) -> dict:
    folder.mkdir()
    count = len(CLASSES) * IMAGES
    content = {
        "x_train": np.stack(list(map(pixels, range(count)))),
        "y_train": np.arange(count) % 3,
    }
    np.savez(folder / "data.npz", **content)
    return {"arrays": str(folder / "data.npz")}


def parquet(folder: Path) -> dict:
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    rows = []
    for number in range(len(CLASSES) * IMAGES):
        file = io.BytesIO()
        Image.fromarray(pixels(number)).save(file, "PNG")
        rows.append(
            {"image": {"bytes": file.getvalue(), "path": f"{number}.png"}, "label": number % 3}
        )
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), folder / "data.parquet", row_group_size=5
    )
    return {"parquet": str(folder / "data.parquet")}


KINDS = {"folder": folder_of_classes, "table": table, "arrays": arrays, "parquet": parquet}


@st.composite
def damages(draw):
    """Return a function that damages something below a folder."""
    which, place, bit = draw(places), draw(places), draw(st.integers(0, 7))
    name, cell = draw(st.sampled_from(NAMES)), draw(st.sampled_from(CELLS))
    content = draw(
        st.one_of(st.binary(max_size=20), st.sampled_from([b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"]))
    )

    def chosen(folder: Path, pattern: str = "*") -> Path | None:
        found = sorted(path for path in folder.rglob(pattern) if path.is_file())
        return found[int(which * len(found))] if found else None

    def of_bytes(change):
        def damage(folder):
            if path := chosen(folder):
                path.write_bytes(change(bytearray(path.read_bytes())))

        return damage

    def flipped(found: bytearray) -> bytes:
        if found:
            found[int(place * len(found))] ^= 1 << bit
        return bytes(found)

    def move(folder):
        if path := chosen(folder):
            path.rename(path.with_name(name)) if not path.with_name(
                name
            ).exists() else path.unlink()

    def copy(folder):
        path, other = chosen(folder), sorted(each for each in folder.rglob("*") if each.is_dir())
        if path and other:
            target = other[int(place * len(other))] / name
            if not target.exists():
                shutil.copyfile(path, target)

    def replace_by_folder(folder):
        if path := chosen(folder):
            path.unlink()
            path.mkdir()

    def link(folder):
        if (path := chosen(folder)) and not (target := path.with_name("link.png")).is_symlink():
            target.symlink_to(draw_target(folder, path))

    def draw_target(folder, path):
        return [path, folder, Path("nowhere"), Path("link.png")][int(place * 4)]

    def edit_cell(folder):
        if path := chosen(folder, "*.csv"):
            rows = [line.split(",") for line in path.read_text(errors="replace").split("\n")]
            row = rows[int(which * len(rows))]
            row[int(place * len(row))] = cell
            path.write_text("\n".join(map(",".join, rows)), errors="surrogateescape")

    def edit_lines(folder):
        if path := chosen(folder, "*.csv"):
            lines = path.read_text(errors="replace").split("\n")
            line = lines.pop(int(which * len(lines)))
            lines += [line] * (bit % 3)
            path.write_text(["\n", "\r\n", "\r", "\n\n"][int(place * 4)].join(lines))

    def save_as(folder):
        if path := chosen(folder, "*.png"):
            mode = ["RGB", "RGBA", "P", "1", "I;16", "CMYK"][int(place * 6)]
            image = Image.new(mode, SHAPE[::-1])
            image.save(path, "PNG" if mode != "CMYK" else "JPEG")

    return draw(
        st.sampled_from(
            [
                of_bytes(flipped),
                of_bytes(flipped),
                of_bytes(lambda found: bytes(found[: int(place * len(found))])),
                of_bytes(lambda found: content),
                of_bytes(lambda found: bytes(found) + content),
                move, copy, replace_by_folder, link, edit_cell, edit_cell, edit_lines, save_as,
                lambda folder: (path := chosen(folder)) and path.unlink(),
            ]
        )
    )  # fmt: skip


def more_keys():
    """Draw what else an entry says."""
    return st.fixed_dictionaries(
        {"test_share": st.sampled_from([0.25, 0.5])},
        optional={
            "unreadable": st.just("skip"),
            "duplicates": st.sampled_from(["keep", "drop"]),
            "image_size": st.just(list(SHAPE)),
            "channels": st.sampled_from([1, 3]),
            "max_value": st.just(65535),
            "classes": st.just({"a": ["cat", 0], "b": ["dog", 1]}),
        },
    )


def as_pillow_reads(path: Path, shape: tuple) -> np.ndarray | None:
    """Return a picture of 8 bits as Pillow reads it; None if it is of another kind."""
    with Image.open(path) as image:
        if image.mode != "L" or image.size != SHAPE[::-1] or "transparency" in image.info:
            return None
        return np.broadcast_to(np.asarray(image), shape)


def check_content(entry: dict, path: Path) -> None:
    """Check that a prepared file holds what is in the files that its list names."""
    tensors, audit = load_file(path), json.loads(audit_file(path).read_text())
    listed = gzip.decompress(images_file(path).read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(listed, newline="")))
    assert {row["split"] for row in rows} == {"train", "test"}
    folder = Path(entry.get("folder") or Path(entry.get("table", "x")).parent)
    counts = Counter()
    for row in rows:
        split = row["split"]
        image = tensors[f"{split}_images"][int(row["index"])]
        label = int(tensors[f"{split}_labels"][int(row["index"])])
        assert list(audit["classes"][split])[label] == row["label"]
        counts[split, row["label"]] += 1
        if "folder" in entry or "table" in entry:
            expected = as_pillow_reads(folder / row["file"], image.shape)
            assert expected is None or np.array_equal(image, expected), row
        if "folder" in entry and "classes" not in entry:
            assert row["file"].split("/")[0] == row["label"]
    assert counts == {
        (split, label): count
        for split, of in audit["classes"].items()
        for label, count in of.items()
        if count
    }
    names = [row["file"] for row in rows if row["file"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS)
def test_one_message_or_the_right_data(kind):
    outcomes = Counter()

    @settings(
        max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(several=st.lists(damages(), max_size=3), more=more_keys())
    def check(several, more):
        with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning would be text on a user's screen
            folder, path = Path(place, "data"), Path(place, "out", "data.safetensors")
            entry = KINDS[kind](folder) | more
            for damage in several:
                damage(folder)
            try:
                known = facts_of(path, entry)
                prepare.prepare(path, "data", entry, readers.open_reader(entry), 1)
            except UserError as error:
                text = str(error)
                assert text.strip() and len(text.splitlines()) < 60
                outcomes["message"] += 1
                return
            outcomes["data"] += 1
            made = facts_of(path, entry)
            assert made.classes == known.classes
            check_content(entry, path)

    end = time.monotonic() + seconds()
    while time.monotonic() < end:
        check()
    assert min(outcomes["message"], outcomes["data"]) > 10
