"""Read the four IDX files of a data set, check them, and write them as one safetensors file.

The file holds train_images uint8 [N, channels, height, width], train_labels int64 [N],
test_images, test_labels, and mean and std (float64 [channels]) of the training pixels scaled to
0-1. Beside it is a small record, NAME.prepared.json, with the file's digest.
"""

import json
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import torch
from safetensors.torch import save_file
from torchvision.datasets.mnist import read_image_file, read_label_file

from lib.core.errors import UserError
from lib.core.files import atomic_path, read_json, sha256
from lib.data import catalog, prepared_record


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    catalog.add_arguments(parser)
    add("--files", type=Path, required=True, metavar="JSON", help="what download.py wrote")
    add("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    args = parser.parse_args()

    entry = catalog.load(args.datasets_file, args.dataset)
    tensors = read(args.files, entry)
    with atomic_path(args.output) as temporary:
        save_file(tensors, temporary, metadata={"classes": json.dumps(entry["classes"])})
    prepared_record.write(args.output, args.dataset, entry)
    mean, std = (" ".join(f"{each:.4f}" for each in tensors[name]) for name in ("mean", "std"))
    print(
        f"{args.dataset}: {entry['train_size']} training and {entry['test_size']} test images, "
        f"mean {mean}, standard deviation {std}: {args.output}"
    )


def read(downloaded: Path, entry: dict) -> dict[str, torch.Tensor]:
    """Read the IDX files that `download.py` listed, and check them against the data set's entry.

    Raises:
        UserError: a file is missing, has changed since, or holds something else.
    """
    tensors = {}
    for role, source in read_json(downloaded)["files"].items():
        path = Path(source["path"])
        again = f"remove {downloaded} and run again: that downloads what is missing or damaged"
        if not path.is_file():
            raise UserError(f"{path} is missing; {again}")
        if sha256(path) != source["sha256"]:
            raise UserError(f"{path} has changed since it was downloaded; {again}")
        tensors[role] = read_idx(path, role, entry)
    if "mean" in entry:
        mean, std = (torch.tensor([entry[key]], dtype=torch.float64) for key in ("mean", "std"))
    else:
        mean, std = mean_and_std(tensors["train_images"])
    return {**tensors, "mean": mean, "std": std}


def read_idx(path: Path, role: str, entry: dict) -> torch.Tensor:
    """Read one IDX file: images uint8 [N, 1, height, width], or labels int64 [N].

    Raises:
        UserError: its shape, its number of items or its labels are not those of the entry.
    """
    split, _, kind = role.partition("_")
    count = entry[f"{split}_size"]
    try:
        tensor = (read_image_file if kind == "images" else read_label_file)(str(path))
    except Exception as error:  # torchvision asserts, or fails in ways of its own
        raise UserError(f"{path} is not an IDX file of {kind}: {error!r}") from error
    expected = [count, *entry["image_size"]] if kind == "images" else [count]
    if list(tensor.shape) != expected:
        raise UserError(f"{path} holds {kind} of shape {list(tensor.shape)}, expected {expected}")
    if kind == "labels":
        classes = len(entry["classes"])
        if tensor.min() < 0 or tensor.max() >= classes:
            raise UserError(
                f"{path} has labels from {tensor.min()} to {tensor.max()}, but there are "
                f"{classes} classes: 0 to {classes - 1}"
            )
    return tensor.unsqueeze(1) if kind == "images" else tensor


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


if __name__ == "__main__":
    command_line.run(main)
