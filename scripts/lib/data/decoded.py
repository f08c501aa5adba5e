"""The pixels of images that are decoded, in a file of their own until the prepared one is written.

Where decoding is cut off, or an image cannot be read, this file stays, and the next attempt decodes
only what is not in it.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL

from lib.core.errors import TemporaryError
from lib.core.files import sha256
from lib.data import pixels
from lib.data.decoding import each_of
from lib.data.pixels import Form, digest_of, pixels_of
from lib.data.readers import Item
from lib.data.tensor_file import PART, read_into


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is known of an image that is decoded.

    Attributes:
        row: of the file, where its pixels are.
        digest: of its pixels.
        constant: whether it is of one color.
        done: what was done to it beyond the size, in words.
    """

    row: int
    digest: str
    constant: bool
    done: list[str]


class DecodedImages:
    """A file of pixels, and a list beside it: first what all images have in common, then each."""

    def __init__(self, prepared: Path, form: Form, sources: Any):
        """Open the file, with the images that are in it already.

        Args:
            prepared: the file that will be made of it, which gives it its name.
            form: of all images, with size and channels.
            sources: what else the images depend on, beyond their files, as JSON holds it.
        """
        self.path = prepared.with_suffix(".decoded")
        self.list_path = prepared.with_suffix(".decoded.jsonl")
        self.shape = (form.channels, *form.image_size)
        self.bytes = math.prod(self.shape)
        self.form, self.images = form, {}
        self.about = {
            "form": asdict(form),
            "sources": sources,
            "code": sha256(Path(pixels.__file__)),
            "pillow": PIL.__version__,
        }

    def __enter__(self) -> Self:
        with self.writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a+b")
            self.list = self.list_path.open("a+", encoding="ascii")
            self._take_over()
        return self

    def __exit__(self, *error: object) -> None:
        with self.writing():
            self.file.close()
            self.list.close()

    def remove(self) -> None:
        """Remove both files: the prepared one has taken their place."""
        for path in (self.path, self.list_path):
            path.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the disk into `TemporaryError`."""
        try:
            yield
        except OSError as error:
            raise TemporaryError(f"cannot write {self.path}: {error.strerror}") from error

    def _take_over(self) -> None:
        """Keep what an earlier attempt has decoded; of a machine that failed, it may be damaged."""
        self.list.seek(0)
        lines = list(islice(_content(self.list), 1, None)) if self._is_same() else []
        for row, (key, digest, constant, done) in enumerate(lines):
            if (row + 1) * self.bytes > self.path.stat().st_size:
                break
            if digest_of(self.read([row])[0]) != digest:
                break
            self.images[key] = Decoded(row, digest, constant, done)
        self.file.truncate(len(self.images) * self.bytes)
        self.list.truncate(0)
        self._note(self.about)
        for key, image in self.images.items():
            self._note([key, *astuple(image)[1:]])

    def _is_same(self) -> bool:
        self.list.seek(0)
        found = next(_content(self.list), None) == json.loads(json.dumps(self.about))
        self.list.seek(0)
        return found

    def _note(self, value: Any) -> None:
        self.list.write(json.dumps(value) + "\n")

    def add(
        self, items: Sequence[Item], read: Callable[[Item], bytes | Path | np.ndarray], threads: int
    ) -> list[Decoded | str]:
        """Decode the images that are not there yet.

        Args:
            items: the images.
            read: returns the content of one.
            threads: that decode.

        Returns:
            What is known of each; or, as a string, why it cannot be read.
        """
        keys = [_key(item) for item in items]
        missing = [index for index, key in enumerate(keys) if key not in self.images]
        if len(missing) < len(items):
            print(f"{len(items) - len(missing):,} of {len(items):,} images are decoded already")

        def decode(index: int) -> tuple[np.ndarray, str, bool, list[str]]:
            values, done = pixels_of(read(items[index]), self.form)
            return values, digest_of(values), not np.ptp(values), done

        failed, results = {}, each_of(missing, decode, "decoding", threads)
        for index, result in zip(missing, results, strict=True):
            if isinstance(result, str):
                failed[index] = result
                continue
            values, *known = result
            with self.writing():
                self.file.write(np.ascontiguousarray(values))
                self._note([keys[index], *known])
            self.images[keys[index]] = Decoded(len(self.images), *known)
        with self.writing():
            self.file.flush()
        return [failed.get(index) or self.images[key] for index, key in enumerate(keys)]

    def read(self, rows: Sequence[int]) -> np.ndarray:
        """Return the pixels in some rows, uint8 [rows, channels, height, width]."""
        values = np.empty((len(rows), *self.shape), np.uint8)
        for value, row in zip(values, rows, strict=True):
            read_into(value, self.file.fileno(), self.path, row * self.bytes)
        return values

    def parts(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the same, as much at once as memory should hold."""
        count = max(1, PART // self.bytes)
        for first in range(0, len(rows), count):
            yield self.read(rows[first : first + count])


def _content(lines: Iterable[str]) -> Iterator[Any]:
    """Yield the lines of a list until one is cut off."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _key(item: Item) -> str:
    """Return what tells whether the image is the one that was decoded."""
    if not isinstance(item.source, Path):
        return str(item.source)
    try:
        found = item.source.stat()
    except (OSError, ValueError):
        return str(item.source)  # it cannot be read, which is found when it is
    return f"{item.source} {found.st_size} {found.st_mtime_ns}"
