"""Cut the small data set out of MNIST: the first 2,000 training and 1,000 test images.

    python tests/data/cut.py results/data/MNIST/raw

writes the .gz files beside this script, the same bytes each time, and prints the SHA-256 of their
contents, which are in datasets.yaml.
"""

import gzip
import hashlib
import struct
import sys
from pathlib import Path

SIZES = {"train": 2000, "t10k": 1000}


def cut(content: bytes, count: int) -> bytes:
    """Return an IDX file of unsigned bytes with only its first `count` items."""
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    item = 1
    for size in shape[1:]:
        item *= size
    start = 4 + 4 * dimensions
    header = content[:4] + struct.pack(f">{dimensions}I", count, *shape[1:])
    return header + content[start : start + count * item]


for path in sorted(Path(sys.argv[1]).glob("*-ubyte")):
    small = cut(path.read_bytes(), SIZES[path.name.split("-")[0]])
    target = Path(__file__).parent / f"{path.name}.gz"
    target.write_bytes(gzip.compress(small, mtime=0))
    print(hashlib.sha256(small).hexdigest(), path.name)
