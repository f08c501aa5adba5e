"""Read the images of a data set, check them, and write them as one safetensors file.

The file holds train_images uint8 [N, channels, height, width], train_labels int64 [N],
test_images, test_labels, and mean and std (float64 [channels]) of the training pixels scaled to
0-1; and train_groups int64 [N] where the images have groups. Where the data is divided into folds,
it holds images, labels and groups of all, fold int64 [N], the number of each image's fold, from 1,
and mean and std (float64 [folds, channels]) of the other folds' pixels. Beside it are

NAME.images.csv.gz   one row per image: index, split (train, test, or fold1 and so on), file, label,
                     group, digest of the pixels
NAME.audit.json      what is in the data, and what is odd about it, which is also printed
NAME.prepared.json   a small record, with the digests of all of these files

Images are decoded into NAME.decoded, and what is known of them into NAME.decoded.jsonl. Both are
removed in the end. Where it is cut off, the same command goes on from there.
"""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import numpy as np
import torch

from lib.core.errors import UserError
from lib.core.files import atomic_path, read_json, sha256, write_json
from lib.core.layout import audit_file, images_file
from lib.data import audit, catalog, prepared_record, readers, tensor_file
from lib.data.decoded import Decoded, DecodedImages
from lib.data.decoding import CORES, each_of
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
        listed = read_json(args.files)["files"]
        files = {role: each | {"listing": args.files} for role, each in listed.items()}
        reader = open_reader(entry, files)
        report = prepare(args.output, args.dataset, entry, reader, args.threads)
    print("\n".join(f"{args.dataset}: {line}" for line in report.lines()))
    made = tensor_file.TensorFile(args.output)
    mean, std = (
        " ".join(f"{each:.4f}" for each in made.read(name).reshape(-1, made.shapes[name][-1])[0])
        for name in ("mean", "std")
    )
    channels, height, width = made.shapes["images" if "folds" in entry else "train_images"][1:]
    print(
        f"{args.dataset}: {channels} x {height} x {width} (channels, height, width), mean {mean}, "
        f"standard deviation {std}{' (without fold 1)' if 'folds' in entry else ''}: {args.output}"
    )


def prepare(path: Path, dataset: str, entry: dict, reader: Reader, threads: int) -> audit.Audit:
    """Decode and check all images; write the prepared file and all that is beside it.

    Raises:
        UserError: an image cannot be read, or the data is not what the entry says; one line for
            each problem.
    """
    found = survey(reader, entry)
    form = form_of(reader, found.items, entry, threads)
    # Where each image has a file of its own, that file and its time say whether it has changed.
    sources = [] if reader.lists else [catalog.content_of(entry), reader.watched]
    sources.append(sha256(readers.module_file(readers.kind_of(entry))))
    with DecodedImages(path, form, sources) as images:
        data = chosen(found, images.add(found.items, reader.read, threads), entry)
        write(path, data, images, small_tensors(data, images, entry))
    prepared_record.write(path, dataset, entry, reader)
    images.remove()
    return data.audit


@dataclass(frozen=True)
class Chosen:
    """The images that go into the prepared file.

    Attributes:
        survey: of them.
        images: what is known of each.
        audit: of the data set.
    """

    survey: Survey
    images: list[Decoded]
    audit: audit.Audit

    @property
    def splits(self) -> dict[str, slice]:
        """Where the images of each split are; with folds, all are together, without a name."""
        if self.survey.folds is not None:
            return {"": slice(None)}
        size = self.survey.train_size
        return {"train_": slice(size), "test_": slice(size, None)}


def chosen(found: Survey, known: list[Decoded | str], entry: dict) -> Chosen:
    """Leave out what is not to go into the prepared file, and say what is in it.

    Args:
        found: all images.
        known: of each, or why it cannot be read.
        entry: of the data set.

    Raises:
        UserError: an image cannot be read, or is in both splits, and the entry does not say what
            to do then.
    """
    unreadable = {index: each for index, each in enumerate(known) if isinstance(each, str)}
    if entry.get("unreadable") != "skip":
        raise_unreadable(found.items, unreadable)
    digests = ["" if index in unreadable else each.digest for index, each in enumerate(known)]
    valid = [index for index in range(len(known)) if index not in unreadable]
    leaked = audit.leaks(digests, valid, found)
    audit.check_leaks(leaked, found, entry.get("duplicates"))
    dropped = set(leaked if entry.get("duplicates") == "drop" else [])
    indices = [index for index in valid if index not in dropped]
    kept, images = found.only(indices), [known[index] for index in indices]
    check_classes(kept, [])
    report = audit.of(
        kept,
        [image.digest for image in images],
        leaked=len(leaked),
        dropped=len(dropped),
        constant=[number for number, image in enumerate(images) if image.constant],
        converted=audit.count([image.done for image in images]),
        unreadable={found.items[index].name: why for index, why in unreadable.items()},
    )
    return Chosen(kept, images, report)


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


def small_tensors(data: Chosen, images: DecodedImages, entry: dict) -> dict[str, torch.Tensor]:
    """Return the tensors of the prepared file but for the images.

    Raises:
        UserError: mean and std of the entry are not of as many channels as the images have.
    """
    targets = torch.from_numpy(data.survey.labels)
    found = {f"{split}labels": targets[part] for split, part in data.splits.items()}
    items, (split, first) = data.survey.items, next(iter(data.splits.items()))
    if items[0].group is not None:
        numbers = {group: n for n, group in enumerate(sorted({item.group for item in items}))}
        of_training = [numbers[item.group] for item in items[first]]
        found[f"{split}groups"] = torch.tensor(of_training, dtype=torch.int64)
    folds = data.survey.folds
    each = statistics(data, images, entry)
    if folds is None:
        return found | {"mean": each[0][0], "std": each[0][1]}
    means, stds = map(torch.stack, zip(*each, strict=True))
    return found | {"fold": torch.from_numpy(folds), "mean": means, "std": stds}


def statistics(
    data: Chosen, images: DecodedImages, entry: dict
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and standard deviation of the training images, once or for each fold.

    Both are float64 [channels].

    Raises:
        UserError: those of the entry are not of as many channels as the images have.
    """
    trainings = data.survey.trainings
    given = [
        np.atleast_1d(entry[key]).astype(np.float64) for key in ("mean", "std") if key in entry
    ]
    if given:
        if any(len(each) != images.shape[0] for each in given):
            raise UserError(
                f"mean, std: they need one number for each of {images.shape[0]} channels"
            )
        return [tuple(map(torch.from_numpy, given))] * len(trainings)
    folds, parts = data.survey.folds is not None, data.survey.parts
    counts = [
        sum(map(value_counts, images.parts([data.images[index] for index in part])))
        for part in (parts.values() if folds else [parts["train"]])
    ]
    if folds:  # each image is read once: a fold's training images are all the others
        counts = [sum(counts) - own for own in counts]
    found = [mean_and_std(each) for each in counts]
    if not all(std.all() for _, std in found):
        raise UserError("all training images are of one color: their standard deviation is 0")
    return found


def value_counts(images: np.ndarray) -> torch.Tensor:
    """Return how many pixels have each value, int64 [channels, 256].

    Args:
        images: uint8 [N, channels, height, width].
    """
    channels = torch.from_numpy(images).unbind(1)
    return torch.stack([torch.bincount(each.flatten(), minlength=256) for each in channels])


def mean_and_std(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation (of the population) of pixels scaled to 0-1.

    Both are float64 [channels].

    Args:
        counts: how many pixels have each value, int64 [channels, 256]. They make the sums exact.
    """
    found, values = [], torch.arange(256, dtype=torch.float64) / 255
    for count in counts.to(torch.float64):
        mean = (count * values).sum() / count.sum()
        found.append((mean, ((count * (values - mean) ** 2).sum() / count.sum()).sqrt()))
    return tuple(map(torch.stack, zip(*found, strict=True)))


def listed_images(data: Chosen) -> bytes:
    """Return the list of images, as CSV: the index counts within a split."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    found, places = data.survey, {}
    for part, indices in data.survey.parts.items():
        places |= {index: (place, part) for place, index in enumerate(indices.tolist())}
    rows = zip(found.items, found.labels, data.images, strict=True)
    for number, (item, label, image) in enumerate(rows):
        about = (item.name, found.classes[label], item.group, image.digest)
        writer.writerow([*places[number], *about])
    return text.getvalue().encode()


def write(
    path: Path, data: Chosen, images: DecodedImages, tensors: dict[str, torch.Tensor]
) -> None:
    """Write the prepared file, the list of its images, and the audit."""
    content = listed_images(data)
    metadata = {"classes": json.dumps(data.survey.classes)}
    if data.survey.items[0].name:  # the names are part of the data
        metadata["images_sha256"] = hashlib.sha256(content).hexdigest()
    pixels = {f"{split}images": data.images[part] for split, part in data.splits.items()}
    shapes = {name: (np.dtype("u1"), (len(each), *images.shape)) for name, each in pixels.items()}
    arrays = {name: each.numpy() for name, each in tensors.items()}
    shapes |= {name: (each.dtype, each.shape) for name, each in arrays.items()}

    def parts() -> Iterator[np.ndarray]:
        for name in tensor_file.in_order({name: dtype for name, (dtype, _) in shapes.items()}):
            yield from images.parts(pixels[name]) if name in pixels else [arrays[name]]

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(tensor_file.content(shapes, metadata, parts()))
    with atomic_path(images_file(path)) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0))
    write_json(audit_file(path), data.audit.as_dict())


if __name__ == "__main__":
    command_line.run(main)
