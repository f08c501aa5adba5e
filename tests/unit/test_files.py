"""Files that exist completely or not at all, whoever else writes beside."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time

import preloaded
import pytest
from conftest import ROOT

from lib.core import files
from lib.core.errors import UserError


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def leftover(path, host, process, age):
    part = path.with_name(f".{path.name}.{host}-{process}.part")
    part.write_text("half")
    os.utime(part, (time.time() - age,) * 2)
    return part


def write_slowly(path, text, barrier):
    with files.atomic_path(path) as temporary:
        temporary.write_text(text)
        barrier.wait()  # both have written, neither has renamed
        barrier.wait()


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path, barrier = tmp_path / "table.csv", multiprocessing.Barrier(3)
    writers = [
        multiprocessing.Process(target=write_slowly, args=(path, text * 1000, barrier))
        for text in "ab"
    ]
    for writer in writers:
        writer.start()
    barrier.wait()
    parts = {part.read_text()[:1] for part in tmp_path.iterdir()}
    barrier.wait()
    for writer in writers:
        writer.join()
    assert parts == {"a", "b"}
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_the_tests_stays_when_a_forked_process_ends():
    folder = preloaded.folder_until_exit("stays-")
    forked = multiprocessing.get_context("fork").Process(target=os.getpid)
    forked.start()
    forked.join()
    assert folder.exists()


def test_what_a_dead_process_left_is_removed(tmp_path):
    path, here = tmp_path / "table.csv", socket.gethostname()
    leftover(path, here, dead_process(), age=3600)
    leftover(path, "another-node", 1, age=48 * 3600)
    kept = {
        leftover(path, here, os.getppid(), age=3600),  # its process is alive
        leftover(path, here, dead_process(), age=0),  # perhaps in another container
        leftover(path, "another-node", 2, age=3600),
        leftover(tmp_path / "other.csv", here, dead_process(), age=3600),  # of another file
    }
    files.write_text(path, "whole")
    assert set(tmp_path.iterdir()) == {path} | kept


def test_a_block_that_raises_leaves_the_old_file(tmp_path):
    files.write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), files.atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_who_has_opened_a_file_reads_all_of_it_while_it_is_replaced(tmp_path):
    files.write_text(tmp_path / "a", "old")
    with (tmp_path / "a").open() as reader:
        files.write_text(tmp_path / "a", "new")
        assert reader.read() == "old"
    assert (tmp_path / "a").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/a: File exists"):
        files.write_text(tmp_path / "file" / "a", "")


def test_what_nothing_depends_on_may_fail_silently(tmp_path):
    files.replace_text(tmp_path / "nowhere" / "progress.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_text_is_utf8_in_every_locale(tmp_path):
    """Also what is no character: a byte of a file's name that is not UTF-8."""
    code = (
        "import sys; sys.path.insert(0, 'scripts'); from pathlib import Path\n"
        "from lib.core import files\n"
        "files.write_csv(Path(sys.argv[1]), ['name'], [{'name': '\\u00e4\\udcff'}])"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, tmp_path / "table.csv"]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True)
    assert (tmp_path / "table.csv").read_bytes() == "name\nä\\udcff\n".encode()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_json_that_is_none_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_a_temporary_file_of_an_impossible_process_is_kept(tmp_path):
    part = leftover(tmp_path / "a", socket.gethostname(), 10**30, age=3600)
    files.write_text(tmp_path / "a", "")
    assert part.exists()


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    files.check_folder(tmp_path / "new" / "folder", "data_dir")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(UserError, match=r"data_dir: .*/file is a file, not a folder"):
            files.check_folder(path, "data_dir")
