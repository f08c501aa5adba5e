"""The lease on a run's folder: one holder at a time, also where there are no hard links."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from lib.core.errors import UserError
from lib.training import lease as leases
from lib.training.lease import Lease


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
from lib.training.lease import Lease
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
    dead = {"id": "dead"}
    faster = {"id": "faster", "host": "elsewhere", "process": 1, "slurm_job": None}
    (tmp_path / "lease.json").write_text(json.dumps(faster))
    Lease(tmp_path)._take_from(dead)
    assert json.loads((tmp_path / "lease.json").read_text()) == faster
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]
