"""A safetensors file, read and written by position: only what is asked for is in memory.

The library maps the file. Of a mapped file, the pages that were touched count as memory of the
process, for Slurm too, and that may be all of them.
"""

import json
import math
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from lib.core.errors import UserError

# In the order in which the library writes them: each tensor begins at a multiple of its width.
DTYPES = {"I64": np.dtype("<i8"), "F64": np.dtype("<f8"), "U8": np.dtype("u1")}
PART = 16 << 20  # bytes that are in memory at once
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class TensorFile:
    """The tensors of a file, by their names.

    Attributes:
        path: of the file.
        metadata: its texts, by their names.
        shapes: of each tensor.
        dtypes: of each tensor.
    """

    def __init__(self, path: Path):
        """Read the file's header.

        Raises:
            UserError: the file is missing or damaged; the message names it.
        """
        self.path = path
        try:
            with safe_open(path, framework="numpy") as file:  # which checks the header
                self.metadata = file.metadata() or {}
            self.file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self.file)
            size = int.from_bytes(os.pread(self.file, 8, 0), "little")
            header = json.loads(os.pread(self.file, size, 8))
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"cannot read {path}: {error}") from error
        header.pop("__metadata__", None)
        if unknown := sorted({each["dtype"] for each in header.values()} - DTYPES.keys()):
            raise UserError(
                f"{path} is not a prepared data set: it has numbers of {', '.join(unknown)}"
            )
        self.shapes = {name: tuple(each["shape"]) for name, each in header.items()}
        self.dtypes = {name: DTYPES[each["dtype"]] for name, each in header.items()}
        self.begins = {name: 8 + size + each["data_offsets"][0] for name, each in header.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return a tensor, or its rows from `start` to `stop`.

        Raises:
            UserError: the file cannot be read.
        """
        shape = self.shapes[name]
        if shape:
            shape = (len(range(shape[0])[start:stop]), *shape[1:])
        values = np.empty(shape, self.dtypes[name])
        begin = self.begins[name] + start * self._row_bytes(name)
        read_into(values, self.file, self.path, begin)
        return values

    def parts(self, name: str) -> Iterator[np.ndarray]:
        """Yield a tensor, as much at once as memory should hold."""
        if not self.shapes[name]:
            yield self.read(name)
            return
        count = max(1, PART // max(1, self._row_bytes(name)))
        for first in range(0, self.shapes[name][0], count):
            yield self.read(name, first, first + count)

    def rows(self, name: str, indices: Sequence[int]) -> np.ndarray:
        """Return some rows of a tensor, in the order of their indices.

        Raises:
            UserError: the file cannot be read.
        """
        values = np.empty((len(indices), *self.shapes[name][1:]), self.dtypes[name])
        size, begin = self._row_bytes(name), self.begins[name]
        for index in indices:  # the disk may fetch them all at once
            os.posix_fadvise(self.file, begin + index * size, size, os.POSIX_FADV_WILLNEED)
        for row, index in zip(values, indices, strict=True):
            read_into(row, self.file, self.path, begin + index * size)
        return values

    def _row_bytes(self, name: str) -> int:
        return math.prod(self.shapes[name][1:]) * self.dtypes[name].itemsize


def read_into(values: np.ndarray, file: int, path: Path, position: int) -> None:
    """Read an array from an open file, given by its descriptor, beginning at a position.

    Raises:
        UserError: it cannot be read; the message names it by its path.
    """
    wanted = memoryview(values).cast("B") if values.size else memoryview(b"")
    while wanted:
        try:
            count = os.preadv(file, [wanted], position)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if not count:
            raise UserError(f"cannot read {path}: it has become shorter")
        wanted, position = wanted[count:], position + count


def content(
    shapes: dict[str, tuple[np.dtype, Sequence[int]]],
    metadata: dict[str, str],
    parts: Iterable[np.ndarray],
) -> Iterator[bytes | np.ndarray]:
    """Yield the content of a safetensors file, as the library writes it, part by part.

    Args:
        shapes: type and shape of each tensor.
        metadata: texts, by their names.
        parts: the values of all tensors, in the order of `in_order`.
    """
    header, end = {"__metadata__": dict(sorted(metadata.items()))}, 0
    for name in in_order({name: dtype for name, (dtype, _) in shapes.items()}):
        dtype, shape = shapes[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield from map(np.ascontiguousarray, parts)


def in_order(dtypes: dict[str, np.dtype]) -> list[str]:
    """Return the names of tensors in the order in which they are written."""
    return sorted(dtypes, key=lambda name: (list(NAMES).index(dtypes[name]), name))
