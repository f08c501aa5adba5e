"""The lease on a run's folder: one holder at a time, also where there are no hard links."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
from conftest import ROOT

from lib.core.errors import UserError
from lib.core.holder import Holder
from lib.running import lease as leases
from lib.running.lease import Lease

HOLDER = {
    "host": "h", "namespace": "n", "user": 0, "process": 1, "process_start": 1.0,
    "slurm_job": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_hard_links(monkeypatch):
    """As on BeeGFS, across folders."""

    def refuse(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_it_is_there_while_it_is_held(tmp_path):
    with Lease(tmp_path / "run") as lease:
        holder = json.loads((tmp_path / "run/lease.json").read_text())
        assert holder["process"] == os.getpid()
        lease.ensure_held()
    assert list((tmp_path / "run").iterdir()) == []
    assert not lease.had_to_wait


def test_a_lease_that_is_gone_is_noticed(tmp_path):
    with Lease(tmp_path) as lease:
        lease.path.unlink()
        with pytest.raises(UserError, match="another process has taken over"):
            lease.ensure_held()


def hold(folder, log):
    """Take the lease; write down when one has it, and when no more."""
    with Lease(folder):
        with log.open("a") as file:
            file.write(f"+{os.getpid()}\n")
        time.sleep(0.05)
        with log.open("a") as file:
            file.write(f"-{os.getpid()}\n")


def test_many_processes_hold_it_one_after_the_other(tmp_path):
    log = tmp_path / "log"
    processes = [
        multiprocessing.Process(target=hold, args=(tmp_path / "run", log)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = log.read_text().split()
    assert len(lines) == 12
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert begin == end.replace("-", "+")  # nobody came between


DIE_WITH_IT = """
import os, sys
sys.path.insert(0, "scripts")
from pathlib import Path
from lib.running.lease import Lease
Lease(Path(sys.argv[1])).__enter__()
os._exit(0)
"""


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path, monkeypatch, capsys):
    subprocess.run([sys.executable, "-c", DIE_WITH_IT, tmp_path], cwd=ROOT, check=True)
    assert (tmp_path / "lease.json").exists()
    monkeypatch.setattr(leases, "DEAD_HERE_AFTER", 0.5)
    with Lease(tmp_path) as lease:
        lease.ensure_held()
    assert "is dead: taking over" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_an_empty_lease_is_that_of_an_unknown_process(tmp_path, monkeypatch, capsys):
    """Its holder was killed between creating the file and writing it."""
    (tmp_path / "lease.json").touch()
    monkeypatch.setattr(leases, "DEAD_AFTER", 0.5)
    with Lease(tmp_path):
        pass
    said = capsys.readouterr().out
    assert "another process is training into" in said
    assert "another process is dead: taking over" in said


def test_a_takeover_restores_the_lease_of_a_third_process(tmp_path):
    """It was faster: it has taken the dead one's lease before us."""
    faster = HOLDER | {"host": "elsewhere"}
    (tmp_path / "lease.json").write_text(json.dumps(faster))
    Lease(tmp_path)._take_from(Holder(**HOLDER))
    assert json.loads((tmp_path / "lease.json").read_text()) == faster
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


NOT_A_HOLDER = {
    "list": b"[]",
    "number": b"3",
    "binary": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "no keys": b'{"host": "x"}',
    "text": json.dumps(HOLDER | {"process": "1"}).encode(),
    "huge": json.dumps(HOLDER | {"process_start": 10**400}).encode(),
}


@pytest.mark.parametrize("content", NOT_A_HOLDER.values(), ids=NOT_A_HOLDER)
def test_a_lease_that_is_none_is_that_of_an_unknown_process(tmp_path, monkeypatch, capsys, content):
    (tmp_path / "lease.json").write_bytes(content)
    monkeypatch.setattr(leases, "DEAD_AFTER", 0.2)
    with Lease(tmp_path) as lease:
        lease.ensure_held()
    assert "another process is dead: taking over" in capsys.readouterr().out


def test_a_process_number_that_no_process_has(tmp_path, monkeypatch, capsys):
    for number in (-1, 2**40):
        holder = asdict(replace(Holder.current(), process=number))
        (tmp_path / "lease.json").write_text(json.dumps(holder))
        monkeypatch.setattr(leases, "DEAD_HERE_AFTER", 0.2)
        with Lease(tmp_path):
            pass
        assert f"process {number} on" in capsys.readouterr().out


def test_a_folder_in_the_place_of_the_lease(tmp_path):
    (tmp_path / "lease.json").mkdir()
    with pytest.raises(UserError, match=r"lease\.json is a folder.*remove it"), Lease(tmp_path):
        pass


def test_a_run_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match=r"cannot write .*run/lease\.json"), Lease(tmp_path / "run"):
        pass


def test_a_full_disk_leaves_no_lease(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leases.json, "dump", full)
    with pytest.raises(UserError, match="No space left on device"), Lease(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
