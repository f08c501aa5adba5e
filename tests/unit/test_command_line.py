"""How a command ends: with one message, whatever the terminal, the disk or the user does."""

import os
import subprocess
import sys
from argparse import ArgumentTypeError

import pytest
from conftest import ROOT

from lib.core import command_line

THREADS = """
import os, sys
sys.path.insert(0, "scripts")
from lib.core import command_line
import numpy
print(len(os.listdir("/proc/self/task")), os.environ["OMP_NUM_THREADS"])
"""
START = "import os, sys; sys.path.insert(0, 'scripts'); from lib.core import command_line\n"
WITHOUT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(code, redirect="", **environment):
    """Run a command whose main function is `code`, by a shell that redirects its output."""
    code = f"{START}def main():\n    {code}\ncommand_line.run(main)"
    command = ["bash", "-c", f'exec "$@" {redirect}', "bash", sys.executable, "-c", code]
    environment = os.environ | environment
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, WITHOUT_UTF8]
)
def test_a_character_that_the_terminal_lacks_is_printed_as_its_number(environment):
    done = run("print('98.5\\u201399.0')", **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "98.5\\u201399.0\n", "")


def test_a_name_that_is_not_utf8_is_printed():
    done = run(r"print(os.fsdecode(b'\xff'))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\udcff\n", "")


def test_a_name_that_the_locale_lacks():
    done = run("open('results-\\u00e4')", **WITHOUT_UTF8)
    assert done.returncode == 1
    assert "'results-\\xe4' cannot be a file's name" in done.stderr
    assert "LC_ALL=C.UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_behind_the_output():
    done = run("print('x' * 100_000)", redirect="> /dev/full")
    assert done.returncode == os.EX_TEMPFAIL
    assert done.stderr == "error: standard output: No space left on device\n"
    done = run("print('x')", redirect="> /dev/full")
    assert done.stderr == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output(redirect):
    done = run("print('said', sys.stdout.isatty())", redirect=redirect)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_the_operating_system_names_the_file(tmp_path):
    done = run(f"open({str(tmp_path / 'nowhere' / 'file')!r})")
    assert done.returncode == os.EX_TEMPFAIL
    assert done.stderr == f"error: {tmp_path}/nowhere/file: No such file or directory\n"
    assert run(f"open({str(tmp_path)!r})").stderr == f"error: {tmp_path}: Is a directory\n"


def test_a_mistake_of_ours_is_shown_as_one():
    done = run("raise KeyError('key')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'key'" in done.stderr


def test_ctrl_c_before_a_command_has_begun():
    code = f"{START}import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-2, "")


@pytest.mark.parametrize("text", ["-1", "x", "1.0", "nan", "", "1" * 5000, str(2**63), str(2**64)])
def test_an_integer_that_is_refused(text):
    with pytest.raises(ArgumentTypeError):
        command_line.at_least(0)(text)


def test_the_message_names_the_limit():
    assert command_line.at_least(0)(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(ArgumentTypeError, match="is more than 9223372036854775807"):
        command_line.at_least(0)(str(2**64))
    with pytest.raises(ArgumentTypeError, match="'2000' is more than 1024"):
        command_line.at_least(1, 1024)("2000")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "0", "1e300", "x", ""])
def test_a_duration_that_is_refused(text):
    with pytest.raises(ArgumentTypeError, match="is not a number greater than 0"):
        command_line.duration(text)


def test_a_duration():
    assert command_line.duration("0.5") == 0.5


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "--interval", "nan"),
        ("watch", "--interval=-1"),
        ("download", "--dataset", "MNIST", "--output", "x", "--timeout", "nan"),
        ("download", "--dataset", "MNIST", "--output", "x", "--deadline", "inf"),
    ],
)
def test_a_command_refuses_it(arguments):
    name, *options = arguments
    command = [sys.executable, f"scripts/{name}.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not a number greater than 0" in done.stderr


@pytest.mark.parametrize(("asked", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")])
def test_a_command_starts_no_thread_for_each_core(asked, threads):
    """Where nothing else is asked for. A login node of many cores may refuse them."""
    unset = {key: value for key, value in os.environ.items() if "_NUM_THREADS" not in key}
    command = [sys.executable, "-c", THREADS]
    done = subprocess.run(command, cwd=ROOT, env=unset | asked, capture_output=True, text=True)
    assert done.stdout.split() == ["1", threads], done.stderr
