"""Other programs: their output, their failures and their time limit."""

import sys
import time

import pytest

from lib.core import subprocesses
from lib.core.errors import UserError


def python(code, **options):
    return subprocesses.run([sys.executable, "-c", code], **options)


def test_what_it_prints():
    done = python("import sys; print('out'); print('err', file=sys.stderr)")
    assert (done.ok, done.stdout, done.stderr) == (True, "out\n", "err\n")
    assert done.checked() == "out\n"


def test_a_failure_has_the_programs_own_words():
    done = python("import sys; sys.exit('no such partition')")
    assert (done.ok, done.status, done.message) == (False, 1, "no such partition")
    with pytest.raises(UserError, match=r"python.* -c .* failed: no such partition"):
        done.checked()


def test_a_failure_without_words():
    assert python("raise SystemExit(3)").message == "exit status 3"


def test_a_program_that_is_not_there():
    done = subprocesses.run(["no-such-program", "--help"])
    assert not done.ok
    assert done.message == "cannot start no-such-program: No such file or directory"


def test_a_program_that_does_not_end():
    start = time.monotonic()
    done = python("import time; time.sleep(60)", timeout=0.5)
    assert time.monotonic() - start < 30
    assert not done.ok
    assert done.message == "no answer within 0.5 s"


def test_it_reads_no_keyboard():
    assert python("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"
