"""The code as it was when Snakemake started: kept, unpacked, and removed again."""

import json
import os
from dataclasses import asdict, replace

import pytest

from lib.core import snapshot
from lib.core.errors import UserError
from lib.core.holder import Holder
from lib.core.layout import Layout
from lib.core.snapshot import HOLDER, UNPACKED, CodeOfJobs, Snapshot

NEVER = (lambda _: False, Holder.has_ended)  # no study has jobs in a queue


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of a few files, in which the process is."""
    for name in ("Snakefile", "scripts/train.py", "scripts/models/own.py", "workflow/rules/a.smk"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    monkeypatch.setattr(snapshot, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_files_count_but_caches(root):
    before = Snapshot.take()
    names = {"Snakefile", "scripts/train.py", "scripts/models/own.py", "workflow/rules/a.smk"}
    assert set(before.files) == names
    for name in ("scripts/__pycache__/train.pyc", "scripts/.train.py.swp", "config.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    (root / "scripts" / "gone.py").symlink_to("nowhere")
    (root / "scripts" / "around").symlink_to(root / "scripts")
    assert Snapshot.take().digest == before.digest
    (root / "scripts/models/weights.bin").write_bytes(b"\0\1")
    assert Snapshot.take().digest != before.digest
    (root / "scripts/models/weights.bin").unlink()
    (root / "scripts/models/own.py").rename(root / "scripts/models/other.py")
    assert Snapshot.take().digest != before.digest


def test_linked_folders_are_part_of_it(root):
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "net.py").write_text("# net\n")
    (root / "scripts" / "models" / "more").symlink_to(root / "elsewhere")
    assert Snapshot.take().files["scripts/models/more/net.py"] == b"# net\n"
    (root / "workflow" / "models").symlink_to(root / "scripts" / "models")
    files = Snapshot.take().files
    assert {"scripts/models/own.py", "workflow/models/own.py"} <= files.keys()


def test_what_is_kept_is_read_again(root):
    taken, layout = Snapshot.take(), Layout(root / "results")
    taken.keep(layout)
    path = layout.code(taken.digest)
    first = path.read_bytes()
    assert Snapshot.read(path, taken.digest) == taken
    path.unlink()
    Snapshot.take().keep(layout)
    assert path.read_bytes() == first
    with pytest.raises(UserError, match=r"is damaged: its content is not that of its digest"):
        Snapshot.read(path, "0" * 64)
    path.write_bytes(first[:-50])
    with pytest.raises(UserError, match=rf"cannot read {path}"):
        Snapshot.read(path, taken.digest)


def test_the_copy_of_a_start(root):
    """It stays until the next start if jobs failed, and is removed where all have succeeded."""
    layout = Layout(root / "results")
    code = CodeOfJobs()
    assert not code.folder.exists()
    code.start(layout, *NEVER)
    assert (code.folder / "scripts/models/own.py").read_text() == "# scripts/models/own.py\n"
    assert json.loads((code.folder / "origin.json").read_text())["snapshot"] == code.snapshot.digest
    assert [path.name for path in (root / "results/code").iterdir()] == [
        f"{code.snapshot.digest}.tar.gz"
    ]
    other = CodeOfJobs()
    other.start(layout, *NEVER)
    assert other.folder != code.folder  # both are of this process, which lives
    assert {code.folder, other.folder} == set(UNPACKED.iterdir())
    code.remove()
    other.end()
    assert list(UNPACKED.iterdir()) == [other.folder]
    snapshot.remove_unneeded(*NEVER)
    assert not list(UNPACKED.iterdir())


def held_by(holder, name):
    folder = UNPACKED / name
    folder.mkdir(parents=True)
    content = (asdict(holder) if holder else {}) | {"results_dir": "results"}
    (folder / HOLDER).write_text(json.dumps(content))


def test_copies_that_somebody_may_need_stay(root):
    here = Holder.current()
    held_by(here, "of-a-living-process")
    held_by(replace(here, host="elsewhere"), "of-another-machine")
    held_by(replace(here, process=2**22 + 1), "of-a-killed-process")
    held_by(None, "of-one-that-has-ended")
    (UNPACKED / "not-written-yet").mkdir()
    every = {path.name for path in UNPACKED.iterdir()}
    asked = []

    def has_jobs(layout):
        asked.append(str(layout.results))
        return True

    def no_answer(_):
        raise UserError("Slurm does not answer")

    for answer in (has_jobs, no_answer):
        snapshot.remove_unneeded(answer, Holder.has_ended)
        assert {path.name for path in UNPACKED.iterdir()} == every
    assert asked == ["results"] * 3
    lease = Layout(root / "results").run("mlp", 1).lease
    lease.parent.mkdir(parents=True)
    lease.touch()  # a training whose Snakemake was killed
    snapshot.remove_unneeded(*NEVER)
    assert {path.name for path in UNPACKED.iterdir()} == every
    lease.unlink()
    snapshot.remove_unneeded(*NEVER)
    assert {path.name for path in UNPACKED.iterdir()} == {
        "of-a-living-process", "of-another-machine", "not-written-yet",
    }  # fmt: skip
    for path in UNPACKED.iterdir():
        os.utime(path, (0, 0))
    snapshot.remove_unneeded(*NEVER)
    assert {path.name for path in UNPACKED.iterdir()} == {"of-a-living-process"}
