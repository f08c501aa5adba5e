"""Why a job has ended, by Slurm's words and the job's own. tests/slurm lets each happen."""

import pytest

from lib.cluster import causes
from lib.cluster.causes import Cause, End

NOT_FOUND = "/bin/sh: 1: /home/me/project/.venv/bin/python: not found"
OVER = "slurmstepd: error: StepId=7.0 exceeded memory limit (1 > 0), being killed"
OOM = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch"
LIMIT = (
    "slurmstepd: error: *** JOB 7 ON cpu1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***"
)
SCANCEL = "slurmstepd: error: *** JOB 7 ON cpu1 CANCELLED AT 2026-01-02T03:04:05 ***"
CHDIR = "slurmstepd: error: couldn't chdir to `/home/me/project': No such file or directory"
NOT_ENDED, NEVER_BEGAN = None, "never began"
# Slurm's state, its log, the exit status of the job's own commands; what is to follow.
ENDS = {
    "memory, cgroup": ("OUT_OF_MEMORY", OOM, NOT_ENDED, Cause.MEMORY),
    "memory, no cgroup": ("FAILED", OVER, 137, Cause.MEMORY),
    "memory, forgotten": ("", OOM, NOT_ENDED, Cause.MEMORY),
    "memory, of which a part of it was killed": ("OUT_OF_MEMORY", OOM, 1, Cause.MEMORY),
    "time": ("TIMEOUT", "", NOT_ENDED, Cause.TIME),
    "time, forgotten": ("", LIMIT, NOT_ENDED, Cause.TIME),
    "canceled": ("CANCELLED", SCANCEL, 143, Cause.EXTERNAL),
    "canceled, forgotten": ("", SCANCEL, NOT_ENDED, Cause.EXTERNAL),
    "canceled before it began": ("CANCELLED", "", NEVER_BEGAN, Cause.EXTERNAL),
    "node failed": ("NODE_FAIL", "", NOT_ENDED, Cause.EXTERNAL),
    "node did not boot": ("BOOT_FAIL", "", NEVER_BEGAN, Cause.NODE),
    "no environment": ("FAILED", NOT_FOUND, NEVER_BEGAN, Cause.NODE),
    "no environment, forgotten": ("", NOT_FOUND, NEVER_BEGAN, Cause.NODE),
    "no project": ("FAILED", CHDIR, NEVER_BEGAN, Cause.NODE),
    "full /tmp": ("FAILED", "No space left on device", NEVER_BEGAN, Cause.NODE),
    "no GPU": ("FAILED", "", 69, Cause.NODE),
    "no GPU, forgotten": ("", "", 69, Cause.NODE),
    "wrong": ("FAILED", "", 1, Cause.DETERMINISTIC),
    "too late": ("DEADLINE", "", NEVER_BEGAN, Cause.DETERMINISTIC),
    "file system": ("FAILED", "", 75, Cause.UNKNOWN),
    "killed": ("FAILED", "", 137, Cause.UNKNOWN),
    "asked to end": ("FAILED", "", 143, Cause.UNKNOWN),
    "full for the job": ("FAILED", "No space left on device", NOT_ENDED, Cause.UNKNOWN),
}


def end(tmp_path, state, slurm_log, status, seconds_left=600, **more):
    path = tmp_path / "7.log"
    path.write_text(slurm_log)
    began = status != NEVER_BEGAN
    status = status if began else None
    noted = None if status is None else causes.cause_of_status(status, seconds_left)
    return End(state, path, path, began, status=status, noted=noted, **more)


@pytest.mark.parametrize("known", ENDS.values(), ids=ENDS.keys())
def test_the_cause(tmp_path, known):
    *said, cause = known
    assert causes.cause_of(end(tmp_path, *said)) is cause


def test_a_job_without_any_log_could_not_begin(tmp_path):
    missing = End("FAILED", tmp_path / "7.log", tmp_path / "7.log", began=False)
    assert causes.cause_of(missing) is Cause.NODE
    assert causes.last_words(missing) == "it left no log"


@pytest.mark.parametrize(("seconds_left", "cause"), [(78, Cause.TIME), (480, Cause.UNKNOWN)])
@pytest.mark.parametrize("alone", [True, False])
def test_a_training_that_was_asked_to_end_shortly_before_its_limit(
    tmp_path, alone, seconds_left, cause
):
    """It saves a checkpoint and fails: Slurm does not call that a timeout."""
    stopped = end(tmp_path, "FAILED", "", 143, seconds_left, alone=alone)
    assert causes.cause_of(stopped) is cause


def test_the_last_words_are_the_end_of_the_log(tmp_path):
    lines = [f"line {number}" for number in range(9)]
    said = end(tmp_path, "FAILED", "\n\n".join(lines) + "\n\n", 1)
    assert causes.last_words(said) == "\n".join(lines[-5:])


# As above, but the Slurm job has worked on many runs.
PACK_ENDS = {
    "it has diverged": ("FAILED", "", 1, Cause.DETERMINISTIC),
    "it has diverged, others used too much": ("OUT_OF_MEMORY", OOM, 1, Cause.DETERMINISTIC),
    "it was killed, others have diverged": ("FAILED", "", 137, Cause.UNKNOWN),
    "it was killed for memory": ("OUT_OF_MEMORY", OOM, 137, Cause.MEMORY),
    "the time is up": ("TIMEOUT", LIMIT, 143, Cause.TIME),
    "the time is up before it has begun": ("TIMEOUT", LIMIT, NOT_ENDED, Cause.TIME),
    "canceled": ("CANCELLED", SCANCEL, NOT_ENDED, Cause.EXTERNAL),
    "the job could not begin": ("FAILED", NOT_FOUND, NEVER_BEGAN, Cause.NODE),
    "its node cannot run it": ("FAILED", "", 69, Cause.NODE),
}


@pytest.mark.parametrize("known", PACK_ENDS.values(), ids=PACK_ENDS.keys())
def test_the_cause_for_one_run_of_many(tmp_path, known):
    *said, cause = known
    assert causes.cause_of(end(tmp_path, *said, alone=False)) is cause
