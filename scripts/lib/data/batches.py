"""The images of one split, as training and evaluation take them: batches, normalized.

They are kept as the bytes that they are, in memory or on a GPU; or, where they are many, in their
file, from which each batch is read.
"""

from dataclasses import dataclass, replace

import torch

from lib.data.tensor_file import PART, TensorFile

SHARE_OF_GPU = 4  # of its free memory, the images that are read from a file may take one in so many


class StoredImages:
    """Images in a prepared file, uint8 [N, channels, height, width].

    An index reads those that it selects, as it does with a tensor: a slice, or int64 [n].
    """

    device = torch.device("cpu")

    def __init__(self, file: TensorFile, name: str, rows: torch.Tensor | None = None):
        """Make an object that reads a tensor of a file; `rows` are those that take part."""
        self.file, self.name = file, name
        count, *image = file.shapes[name]
        self.rows = torch.arange(count) if rows is None else rows
        # Version 0.2 wrote gray images without channels.
        self.shape = (len(self.rows), *([1, *image] if len(image) == 2 else image))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | torch.Tensor) -> torch.Tensor:
        found = self.file.rows(self.name, self.rows[which].tolist())
        return torch.from_numpy(found).reshape(-1, *self.shape[1:])

    @property
    def nbytes(self) -> int:
        """The bytes of all images."""
        return len(self) * torch.Size(self.shape[1:]).numel()

    def only(self, mask: torch.Tensor) -> "StoredImages":
        """Return those that a mask selects, bool [N]."""
        return StoredImages(self.file, self.name, self.rows[mask])

    def to(self, device: torch.device) -> torch.Tensor:
        """Return all of them on a device."""
        images = torch.empty(self.shape, dtype=torch.uint8, device=device)
        count = max(1, PART // images[:1].nbytes)
        for start in range(0, len(self), count):
            part = slice(start, start + count)
            images[part] = self[part].to(device)
        return images


@dataclass(frozen=True)
class Split:
    """The images of one split and their labels.

    Attributes:
        name: training, validation or test.
        images: uint8 [N, channels, height, width].
        labels: int64 [N].
        mean: of the pixels scaled to 0-1, float32 [channels, 1, 1].
        std: their standard deviation, of the same shape.
        table: on a GPU, the normalized value of each byte, float32 [channels, 256].
    """

    name: str
    images: torch.Tensor | StoredImages
    labels: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    table: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, mask: torch.Tensor) -> "Split":
        """Return the images that a mask selects, bool [N]."""
        stored = isinstance(self.images, StoredImages)
        images = self.images.only(mask) if stored else self.images[mask]
        return replace(self, images=images, labels=self.labels[mask])

    def batch(self, which: slice | torch.Tensor) -> torch.Tensor:
        """Return some images, float32 [n, channels, height, width], which the caller may change.

        They are on the device of the split.
        """
        images = self.images[which].to(self.labels.device)
        if self.table is None:
            return normalized(images, self.mean, self.std)
        channels = torch.arange(images.shape[1], device=images.device).reshape(-1, 1, 1)
        return self.table[channels, images.long()]

    def with_table(self) -> "Split":
        """Return the same split, which looks up the normalized values.

        They are computed on the CPU: a GPU divides by multiplying with the reciprocal, which rounds
        otherwise.
        """
        values = torch.arange(256, dtype=torch.uint8).expand(len(self.mean), 1, 256)
        return replace(self, table=normalized(values, self.mean, self.std)[:, 0])

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device.

        Images that are read from their file still are, where they would take too much of a GPU.
        """
        if device.type == "cpu":
            return self
        images, found = self.images, self.with_table()
        if isinstance(images, torch.Tensor) or images.nbytes < free_memory() / SHARE_OF_GPU:
            images = images.to(device)
        labels, table = self.labels.to(device), found.table.to(device)
        return replace(found, images=images, labels=labels, table=table)


def normalized(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Scale pixels to 0-1 and normalize them, with the bits that torchvision gives.

    ToTensor divides a float32 by 255; Normalize then subtracts and divides by float32 constants.

    Args:
        images: uint8 [N, channels, height, width], on the CPU.
        mean: float32 [channels, 1, 1].
        std: of the same shape.
    """
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)


def free_memory() -> int:
    """Return the bytes that are free on the GPU."""
    return torch.cuda.mem_get_info()[0]
