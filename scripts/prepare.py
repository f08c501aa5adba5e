"""Read the images of a data set, check them, and write them as one safetensors file.

The file holds train_images uint8 [N, channels, height, width], train_labels int64 [N],
test_images, test_labels, and mean and std (float64 [channels]) of the training pixels scaled to
0-1; and train_groups int64 [N] where the images have groups. Beside it are

NAME.images.csv.gz   one row per image: index, split, file, label, group, digest of the pixels
NAME.audit.json      what is in the data, and what is odd about it, which is also printed
NAME.prepared.json   a small record, with the digests of all of these files
"""

import csv
import gzip
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import numpy as np
import torch
from safetensors.torch import save_file

from lib.core.errors import UserError
from lib.core.files import atomic_path, read_json, write_json
from lib.core.layout import audit_file, images_file
from lib.data import audit, catalog, prepared_record
from lib.data.decoding import CORES, decoded, each_of
from lib.data.pixels import Form, shape_of
from lib.data.readers import Item, Reader, open_reader, raise_problems
from lib.data.survey import Survey, check_classes, survey

COLUMNS = ["index", "split", "file", "label", "group", "digest"]


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    catalog.add_arguments(parser)
    add("--files", type=Path, required=True, metavar="JSON", help="what download.py wrote")
    add("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    add(
        "--threads",
        type=command_line.at_least(1, 1024),
        default=CORES,
        help="that decode images (default: the cores, %(default)s)",
    )
    args = parser.parse_args()

    entry = catalog.load(args.datasets_file, args.dataset)
    with catalog.errors_of(args.datasets_file, args.dataset):
        listed = read_json(args.files)["files"].items()
        files = {role: each | {"listing": args.files} for role, each in listed}
        reader = open_reader(entry, files)
        found = survey(reader, entry)
        prepared, rows, report = prepare(reader, found, entry, args.threads)
    write(args.output, args.dataset, entry, prepared, rows, report, reader)
    mean, std = (" ".join(f"{each:.4f}" for each in prepared[name]) for name in ("mean", "std"))
    channels, height, width = prepared["train_images"].shape[1:]
    print("\n".join(f"{args.dataset}: {line}" for line in report.lines()))
    print(
        f"{args.dataset}: {channels} x {height} x {width} (channels, height, width), mean {mean}, "
        f"standard deviation {std}: {args.output}"
    )


def prepare(
    reader: Reader, found: Survey, entry: dict, threads: int
) -> tuple[dict[str, torch.Tensor], list[dict], audit.Audit]:
    """Decode and check all images.

    Returns:
        The tensors of the prepared file, the rows of the list of images, and what was found.

    Raises:
        UserError: an image cannot be read, or is in both splits, and the entry does not say what
            to do then.
    """
    form = form_of(reader, found.items, entry, threads)
    images, done = decoded(found.items, reader.read, form, threads)
    unreadable = {index: each for index, each in enumerate(done) if isinstance(each, str)}
    if entry.get("unreadable") != "skip":
        raise_unreadable(found.items, unreadable)
    digests = [audit.digest_of(image) for image in images]
    valid = [index for index in range(len(images)) if index not in unreadable]
    leaked = audit.leaks(digests, valid, found.train_size)
    audit.check_leaks(leaked, found.items, entry.get("duplicates"))
    dropped = set(leaked if entry.get("duplicates") == "drop" else [])
    chosen = [index for index in valid if index not in dropped]
    kept = found.only(chosen)
    check_classes(kept.classes, *kept.labels_by_split, [])
    digests = [digests[index] for index in chosen]
    report = audit.of(
        kept,
        digests,
        leaked=len(leaked),
        dropped=len(dropped),
        constant=[number for number, index in enumerate(chosen) if not np.ptp(images[index])],
        converted=audit.count([done[index] for index in chosen]),
        unreadable={found.items[index].name: why for index, why in unreadable.items()},
    )
    prepared = tensors(images[chosen] if len(chosen) < len(images) else images, kept, entry)
    return prepared, listed(kept, digests), report


def form_of(reader: Reader, items: list[Item], entry: dict, threads: int) -> Form:
    """Return the form of the images: what the entry does not say is as the files have it.

    Raises:
        UserError: they have several sizes, and the entry says none.
    """
    form = Form.of(entry)
    if form.image_size and form.channels:
        return form
    names = {}  # one of each shape
    found = each_of(items, lambda item: shape_of(reader.read(item)), "looking", threads)
    for item, shape in zip(items, found, strict=True):
        if not isinstance(shape, str):  # or the file cannot be read
            names.setdefault(shape, item.name)
    sizes = sorted({shape[1:] for shape in names}, key=np.prod)
    if not form.image_size and len(sizes) > 1:
        of = {shape[1:]: name for shape, name in names.items()}
        low, high = (f"{h} x {w} ({of[h, w]})" for h, w in (sizes[0], sizes[-1]))
        raise UserError(
            f"image_size: the images have {len(sizes)} sizes, from {low} to {high}, height x "
            "width. Set one, such as image_size: [64, 64]"
        )
    channels = form.channels or max((shape[0] for shape in names), default=1)
    return replace(
        form, image_size=form.image_size or max(sizes, default=(1, 1)), channels=channels
    )


def raise_unreadable(items: list[Item], unreadable: dict[int, str]) -> None:
    """Raise one error for all files that cannot be read; none where there are none."""
    problems = [f"{items[index].name or index}: {why}" for index, why in unreadable.items()]
    if problems:
        problems.insert(
            0,
            f"{len(problems):,} of {len(items):,} images cannot be read. Repair them, or set "
            "unreadable: skip to leave them out",
        )
    raise_problems(problems)


def tensors(images: np.ndarray, kept: Survey, entry: dict) -> dict[str, torch.Tensor]:
    """Return the tensors of the prepared file.

    Raises:
        UserError: mean and std of the entry are not of as many channels as the images have.
    """
    items, train_size = kept.items, kept.train_size
    pixels, targets = torch.from_numpy(images), torch.from_numpy(kept.labels)
    found = {
        "train_images": pixels[:train_size],
        "train_labels": targets[:train_size],
        "test_images": pixels[train_size:],
        "test_labels": targets[train_size:],
    }
    if items[0].group is not None:
        numbers = {group: n for n, group in enumerate(sorted({item.group for item in items}))}
        of_training = [numbers[item.group] for item in items[:train_size]]
        found["train_groups"] = torch.tensor(of_training, dtype=torch.int64)
    statistics = [entry[key] for key in ("mean", "std") if key in entry]
    if statistics:
        mean, std = (np.atleast_1d(each).astype(np.float64) for each in statistics)
        if not len(mean) == len(std) == pixels.shape[1]:
            raise UserError(
                f"mean, std: they need one number for each of {pixels.shape[1]} channels"
            )
        return found | {"mean": torch.from_numpy(mean), "std": torch.from_numpy(std)}
    mean, std = mean_and_std(found["train_images"])
    if not std.all():
        raise UserError("all training images are of one color: their standard deviation is 0")
    return found | {"mean": mean, "std": std}


def mean_and_std(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation (of the population) of pixels scaled to 0-1.

    Both are float64 [channels].

    Args:
        images: uint8 [N, channels, height, width]. Counting the 256 values makes the sums exact.
    """
    found, values = [], torch.arange(256, dtype=torch.float64) / 255
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).to(torch.float64)
        mean = (counts * values).sum() / counts.sum()
        found.append((mean, ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()))
    return tuple(map(torch.stack, zip(*found, strict=True)))


def listed(kept: Survey, digests: list[str]) -> list[dict]:
    """Return the rows of the list of images: the index counts within a split."""
    rows = []
    for number, (item, label) in enumerate(zip(kept.items, kept.labels, strict=True)):
        split, first = ("train", 0) if number < kept.train_size else ("test", kept.train_size)
        about = (number - first, split, item.name, kept.classes[label], item.group, digests[number])
        rows.append(dict(zip(COLUMNS, about, strict=True)))
    return rows


def write(
    path: Path,
    dataset: str,
    entry: dict,
    prepared: dict[str, torch.Tensor],
    rows: list[dict],
    report: audit.Audit,
    reader: Reader,
) -> None:
    """Write the prepared file and what is beside it, the record last."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    metadata = {"classes": json.dumps(list(report.classes["train"]))}
    if rows[0]["file"]:  # the names are part of the data
        metadata["images_sha256"] = hashlib.sha256(content).hexdigest()
    with atomic_path(path) as temporary:
        save_file({name: each.contiguous() for name, each in prepared.items()}, temporary, metadata)
    with atomic_path(images_file(path)) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0))
    write_json(audit_file(path), report.as_dict())
    prepared_record.write(path, dataset, entry, reader)


if __name__ == "__main__":
    command_line.run(main)
