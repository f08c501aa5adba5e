"""The data on a node's own disk."""

import shutil

import pytest

from lib.core import records
from lib.core.errors import UserError
from lib.data import staging


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A file with its record, as a Slurm job sees it whose node has a disk of its own."""
    path = tmp_path / "data" / "colors.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"pixels" * 1000)
    records.write(path.with_name("colors.prepared.json"), {}, [path])
    (tmp_path / "disk").mkdir()
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return path


def test_it_is_copied_once_per_job_and_removed(prepared, tmp_path, monkeypatch, capsys):
    copy = staging.staged(prepared)
    assert copy.parent == tmp_path / "disk"
    assert copy.read_bytes() == prepared.read_bytes()
    first = copy.stat().st_mtime_ns
    assert staging.staged(prepared) == copy
    assert copy.stat().st_mtime_ns == first
    assert capsys.readouterr().out.count("was copied to") == 1
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    other = staging.staged(prepared)
    assert other != copy
    staging.remove()
    assert copy.exists()
    assert not other.exists()


def test_the_folder_of_the_job_comes_first(prepared, tmp_path, monkeypatch):
    (tmp_path / "job").mkdir()
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job"))
    assert staging.staged(prepared).parent == tmp_path / "job"
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "not there"))
    assert staging.staged(prepared).parent == tmp_path / "disk"


def test_without_a_job_or_a_disk_it_is_read_where_it_is(prepared, monkeypatch, capsys):
    monkeypatch.delenv("TMPDIR")
    assert staging.staged(prepared) == prepared
    assert "neither of SLURM_TMPDIR, TMPDIR names a folder" in capsys.readouterr().out
    monkeypatch.delenv("SLURM_JOB_ID")
    assert staging.staged(prepared) == prepared
    assert not capsys.readouterr().out


def test_where_there_is_no_room(prepared, tmp_path, monkeypatch, capsys):
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert staging.staged(prepared) == prepared
    assert "is not copied to" in (said := capsys.readouterr().out)
    assert "0 MB are free" in said
    staging.remove()
    assert not list((tmp_path / "disk").iterdir())


def test_what_is_damaged_is_not_used(prepared, tmp_path):
    prepared.write_bytes(prepared.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated or corrupt"):
        staging.staged(prepared)
    staging.remove()
    assert not list((tmp_path / "disk").iterdir())
