"""The data on a node's own disk."""

import os
import shutil
from pathlib import Path

import pytest

from lib.core import records
from lib.core.errors import UserError
from lib.data import staging


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A file with its record, where a node has a disk of its own."""
    path = tmp_path / "data" / "colors.safetensors"
    path.parent.mkdir()
    write(path, b"pixels" * 1000)
    (tmp_path / "disk").mkdir()
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    return path


def write(path, content):
    path.write_bytes(content)
    records.write(path.with_name("colors.prepared.json"), {}, [path])


@pytest.fixture
def job(prepared, monkeypatch):
    """The folder of a job for copies."""
    with staging.folder_of_job() as variable:
        for name, value in variable.items():
            monkeypatch.setenv(name, value)
        yield Path(os.environ[staging.FOLDER])


def test_it_is_copied_once_per_job(prepared, job, tmp_path, capsys):
    copy = staging.staged(prepared)
    assert copy.is_relative_to(job)
    assert job.parent == tmp_path / "disk"
    assert copy.read_bytes() == prepared.read_bytes()
    first = copy.stat().st_mtime_ns
    assert staging.staged(prepared) == copy
    assert copy.stat().st_mtime_ns == first
    assert capsys.readouterr().out.count("was copied to") == 1


def test_it_is_removed_in_the_end(prepared, tmp_path, monkeypatch):
    with pytest.raises(KeyError), staging.folder_of_job() as variable:  # however the job ends
        monkeypatch.setenv(*next(iter(variable.items())))
        assert staging.staged(prepared).exists()
        raise KeyError
    assert not list((tmp_path / "disk").iterdir())


def test_other_data_of_the_same_name_has_a_copy_of_its_own(prepared, job, tmp_path):
    first = staging.staged(prepared)
    write(prepared, b"others" * 1000)
    assert staging.staged(prepared).read_bytes() == prepared.read_bytes()
    elsewhere = tmp_path / prepared.name
    shutil.copy2(prepared, elsewhere)
    assert len({first, staging.staged(prepared), staging.staged(elsewhere)}) == 3


def test_the_folder_of_the_job_comes_first(prepared, tmp_path, monkeypatch):
    (tmp_path / "job").mkdir()
    for value, expected in ((tmp_path / "job", "job"), (tmp_path / "not there", "disk")):
        monkeypatch.setenv("SLURM_TMPDIR", str(value))
        with staging.folder_of_job() as variable:
            assert Path(variable[staging.FOLDER]).parent == tmp_path / expected


def test_without_a_job_or_a_disk_it_is_read_where_it_is(prepared, monkeypatch, capsys):
    assert staging.staged(prepared) == prepared
    assert not capsys.readouterr().out
    monkeypatch.delenv("TMPDIR")
    with staging.folder_of_job() as variable:
        assert variable == {}
    assert "none of SLURM_TMPDIR, TMPDIR names a folder" in capsys.readouterr().out


def test_where_there_is_no_room(prepared, job, tmp_path, monkeypatch, capsys):
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert staging.staged(prepared) == prepared
    assert "is not copied to" in (said := capsys.readouterr().out)
    assert "0 MB are free" in said


def test_what_is_damaged_is_not_used(prepared, job):
    prepared.write_bytes(prepared.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated or corrupt"):
        staging.staged(prepared)
    assert not list(job.rglob("*.safetensors"))
