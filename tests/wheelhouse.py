"""A site with wheels of its own, like the Alliance's: folders of wheels, an index, pip's settings.

The wheels are made of what is installed here, so that no network is needed.
"""

import base64
import hashlib
import platform
import re
import sys
import zipfile
from importlib import metadata
from pathlib import Path

TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"
COMPILED = f"{TAG}-{TAG}-linux_{platform.machine()}"
REFUSED = f"{TAG}-{TAG}-manylinux_2_17_{platform.machine()}"
PURE = "py3-none-any"
# A site's torch has the libraries of CUDA from elsewhere.
LEFT_OUT = "nvidia|cuda|triton"
TORCH = "2.14.0"


def installed(requirements: Path) -> list[metadata.Distribution]:
    """Return what is installed of the packages that a requirements file names."""
    names = re.findall(r"^([a-z0-9][\w.-]*)[^=\n]*==", requirements.read_text(), re.MULTILINE)
    names = {name for name in names if not re.match(LEFT_OUT, name)}
    found = {normalized(each.name): each for each in metadata.distributions()}
    return [found[name] for name in sorted(names) if name in found]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def is_pure(distribution: metadata.Distribution) -> bool:
    wheel = distribution.read_text("WHEEL") or ""
    return "Root-Is-Purelib: false" not in wheel


def wheel(
    folder: Path,
    distribution: metadata.Distribution,
    version: str,
    tag: str,
    code: dict[str, bytes],
) -> None:
    """Write a wheel with the metadata of a distribution, another version, and these files."""
    stem = f"{distribution.name.replace('-', '_').replace('.', '_')}-{version}"
    text = distribution.read_text("METADATA")
    text = re.sub(r"^Version: .*$", f"Version: {version}", text, count=1, flags=re.MULTILINE)
    text = re.sub(rf"^Requires-Dist: ({LEFT_OUT}).*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(Requires-Dist: torch)==.*$", rf"\1=={TORCH}", text, flags=re.MULTILINE)
    info = f"{stem}.dist-info"
    purelib = "true" if tag == PURE else "false"
    files = code | {
        f"{info}/METADATA": text.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {purelib}\n"
        f"Tag: {tag}\n".encode(),
    }
    if entry_points := distribution.read_text("entry_points.txt"):
        files[f"{info}/entry_points.txt"] = entry_points.encode()
    record = "".join(
        f"{name},sha256={digest(content)},{len(content)}\n" for name, content in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def code_of(distribution: metadata.Distribution) -> dict[str, bytes]:
    """Return the files of a distribution, without its metadata and commands."""
    files = (file for file in distribution.files or [] if file.parts[0] != "..")
    wanted = (f for f in files if ".dist-info" not in f.parts[0] and "__pycache__" not in f.parts)
    return {str(file): file.locate().read_bytes() for file in wanted}
