"""Why a job has ended, by Slurm's words and the logs. tests/slurm lets each happen."""

import os
from datetime import datetime, timedelta

import pytest

from lib.cluster import causes
from lib.cluster.causes import Cause, End

BEGAN = "2026-01-02T03:04:05+00:00 on cpu1, Slurm job 7\n"
NOT_FOUND = "/bin/sh: 1: /home/me/project/.venv/bin/python: not found"
OVER = "slurmstepd: error: StepId=7.0 exceeded memory limit (1 > 0), being killed"
OOM = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch"
LIMIT = (
    "slurmstepd: error: *** JOB 7 ON cpu1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***"
)
SCANCEL = "slurmstepd: error: *** JOB 7 ON cpu1 CANCELLED AT 2026-01-02T03:04:05 ***"
CHDIR = "slurmstepd: error: couldn't chdir to `/home/me/project': No such file or directory"
# Slurm's state and exit code, its log, the job's own; what is to follow.
ENDS = {
    "memory, cgroup": ("OUT_OF_MEMORY", "0:125", OOM, BEGAN, Cause.MEMORY),
    "memory, no cgroup": ("FAILED", "1:0", OVER, BEGAN, Cause.MEMORY),
    "memory, forgotten": ("", "", OOM, BEGAN, Cause.MEMORY),
    "time": ("TIMEOUT", "0:0", "", BEGAN, Cause.TIME),
    "time, forgotten": ("", "", LIMIT, BEGAN, Cause.TIME),
    "canceled": ("CANCELLED", "0:0", SCANCEL, BEGAN, Cause.EXTERNAL),
    "canceled, forgotten": ("", "", SCANCEL, BEGAN, Cause.EXTERNAL),
    "node failed": ("NODE_FAIL", "0:0", "", BEGAN, Cause.EXTERNAL),
    "no environment": ("FAILED", "127:0", NOT_FOUND, "", Cause.NODE),
    "no environment, forgotten": ("", "", NOT_FOUND, "", Cause.NODE),
    "no project": ("FAILED", "1:0", CHDIR, "", Cause.NODE),
    "full /tmp": ("FAILED", "1:0", "OSError: [Errno 28] No space left on device", "", Cause.NODE),
    "no GPU": ("FAILED", "1:0", "", f"{BEGAN}error: torch\nexit status 69\n", Cause.NODE),
    "no GPU, forgotten": ("", "", "", f"{BEGAN}error: torch\nexit status 69\n", Cause.NODE),
    "wrong": ("FAILED", "1:0", "", f"{BEGAN}error: nan\nexit status 1\n", Cause.DETERMINISTIC),
    "file system": ("FAILED", "1:0", "", f"{BEGAN}error: x\nexit status 75\n", Cause.UNKNOWN),
    "killed": ("FAILED", "1:0", "", f"{BEGAN}Killed\nexit status 137\n", Cause.UNKNOWN),
    "full for the job": ("FAILED", "1:0", "No space left on device", BEGAN, Cause.UNKNOWN),
    "wrong Snakefile": ("FAILED", "1:0", "NameError in file Snakefile", "", Cause.UNKNOWN),
    "another job's log": (
        "FAILED", "1:0", "", BEGAN.replace("7", "6") + "exit status 1\n", Cause.UNKNOWN
    ),
}  # fmt: skip


def end(tmp_path, state, code, slurm_log, log):
    (tmp_path / "log").write_text(log)
    (tmp_path / "7.log").write_text(slurm_log)
    return End("7", state, code, 10.0, tmp_path / "log", tmp_path / "7.log")


@pytest.mark.parametrize("known", ENDS.values(), ids=ENDS.keys())
def test_the_cause(tmp_path, known):
    *said, cause = known
    assert causes.cause_of(end(tmp_path, *said)) is cause


def test_a_job_without_any_log_could_not_begin(tmp_path):
    missing = End("7", "FAILED", "1:0", 10.0, tmp_path / "log", tmp_path / "7.log")
    assert causes.cause_of(missing) is Cause.NODE
    assert causes.last_words(missing) == "it left no log"


@pytest.mark.parametrize(("minutes", "cause"), [(8.7, Cause.TIME), (2, Cause.UNKNOWN)])
def test_a_training_that_was_asked_to_end_shortly_before_its_limit(tmp_path, minutes, cause):
    """It saves a checkpoint and fails: Slurm does not call that a timeout."""
    start = datetime(2026, 1, 2, 3, 4, 5).astimezone()
    log = f"{start.isoformat()} on cpu1, Slurm job 7\nstopped by SIGTERM\nexit status 143\n"
    stopped = end(tmp_path, "FAILED", "1:0", "", log)
    at = (start + timedelta(minutes=minutes)).timestamp()
    os.utime(tmp_path / "log", (at, at))
    assert causes.cause_of(stopped) is cause


def test_the_last_words_are_those_of_the_last_attempt(tmp_path):
    log = (
        f"{BEGAN.replace('7', '6')}old\nexit status 1\n{BEGAN}\nnew\nerror: wrong\nexit status 1\n"
    )
    assert causes.last_words(end(tmp_path, "FAILED", "1:0", "", log)) == "new\nerror: wrong"
    never_began = end(tmp_path, "FAILED", "127:0", f"{NOT_FOUND}\n", "")
    assert causes.last_words(never_began) == NOT_FOUND


# As above, but the job has worked on many runs: its log is a pack's, the run's own is its own.
PACK_ENDS = {
    "it has diverged": (
        "FAILED", BEGAN + "exit status 1\n", BEGAN + "exit status 1\n", Cause.DETERMINISTIC
    ),
    "it has diverged, others used too much": (
        "OUT_OF_MEMORY", BEGAN + OOM, BEGAN + "error: nan\nexit status 1\n", Cause.DETERMINISTIC
    ),
    "it was killed, others have diverged": (
        "FAILED", BEGAN + "exit status 1\n", BEGAN + "Killed\nexit status 137\n", Cause.UNKNOWN
    ),
    "it was killed for memory": (
        "OUT_OF_MEMORY", BEGAN + OOM, BEGAN + "Killed\nexit status 137\n", Cause.MEMORY
    ),
    "the time is up": (
        "TIMEOUT", BEGAN + LIMIT, BEGAN + "stopped by SIGTERM\nexit status 143\n", Cause.TIME
    ),
    "the time is up before it has begun": ("TIMEOUT", BEGAN + LIMIT, "", Cause.TIME),
    "canceled": ("CANCELLED", BEGAN + SCANCEL, BEGAN, Cause.EXTERNAL),
    "the job could not begin": ("FAILED", NOT_FOUND, "", Cause.NODE),
    "its node cannot run it": (
        "FAILED", BEGAN + "exit status 1\n", BEGAN + "exit status 69\n", Cause.NODE
    ),
}  # fmt: skip


@pytest.mark.parametrize("known", PACK_ENDS.values(), ids=PACK_ENDS.keys())
def test_the_cause_for_one_run_of_many(tmp_path, known):
    state, slurm_log, log, cause = known
    assert causes.cause_in_pack(end(tmp_path, state, "1:0", slurm_log, log)) is cause


def test_a_pack_that_was_asked_to_end_shortly_before_its_limit(tmp_path):
    """A run that had begun only then was out of time, too; the pack's log says since when."""
    said = "{} on cpu1, Slurm job 7\nexit status 143\n"
    start = datetime(2026, 1, 2, 3, 4, 5).astimezone()
    later = start + timedelta(minutes=8.5)
    logs = [said.format(time.isoformat()) for time in (start, later)]
    stopped = end(tmp_path, "FAILED", "143:0", *logs)
    for name in ("log", "7.log"):
        time = (start + timedelta(minutes=8.9)).timestamp()
        os.utime(tmp_path / name, (time, time))
    assert causes.cause_of(stopped) is Cause.UNKNOWN
    assert causes.cause_in_pack(stopped) is Cause.TIME
