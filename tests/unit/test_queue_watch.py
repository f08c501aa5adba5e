"""Jobs that would wait forever: what is done about them, and what is told. tests/slurm has more."""

import logging
import time

import pytest

from lib.cluster import queue_watch
from lib.cluster.bad_nodes import BadNodes
from lib.cluster.polling import Status
from lib.cluster.queue_watch import QueueWatch

HELD = 'echo "7|launch failed requeued held|gpu1"; echo "8|JobHeldUser|"; echo "9|Priority|(null)"'
GONE = "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"
FAILED_ON = 'printf "cpu1\\nNone assigned\\n"'


@pytest.fixture
def queue(programs):
    called = programs(squeue=HELD, scontrol="", sacct=FAILED_ON)
    return QueueWatch("a-run", BadNodes(), logging.getLogger("test")), called


def look(watch, **states):
    return watch.look({job[1:]: Status(state, "cpu1") for job, state in states.items()})


def test_nothing_is_asked_about_jobs_that_wait_and_run(queue):
    watch, called = queue
    for states in ({}, {"_1": "PENDING"}, {"_1": "RUNNING", "_2": "PENDING"}, {"_1": "COMPLETED"}):
        assert look(watch, **states) == {}
    assert called() == []


@pytest.mark.parametrize("before", ["RUNNING", "REQUEUED"])
def test_a_job_that_is_back_in_the_queue_is_looked_at_once(queue, before):
    watch, called = queue
    look(watch, _7=before, _1="PENDING")
    for _ in range(3):
        look(watch, _7="PENDING", _1="PENDING")
    asked = [call for call in called() if call.startswith("squeue")]
    assert "--name=a-run --states=PENDING" in asked[-1]
    assert len(asked) == 1 + (before == "REQUEUED")
    assert "scontrol update JobId=7 ExcNodeList=cpu1,gpu1" in called()
    assert "scontrol release 7" in called()
    assert not any("release 8" in call or "release 9" in call for call in called())
    assert "Slurm job 7" in watch.bad_nodes.report()


def test_a_hold_is_released_twice_at_the_most(queue):
    watch, called = queue
    given_up = [watch.look_at_pending({"7"}) for _ in range(3)]
    assert given_up[:2] == [{}, {}]
    assert "it was released 2 times" in given_up[2]["7"]
    assert called().count("scontrol release 7") == 2


def test_a_job_that_has_no_node_left_after_a_release_is_given_up(programs):
    programs(squeue=HELD, scontrol="", sacct=FAILED_ON)
    watch = QueueWatch("a-run", BadNodes(), logging.getLogger("test"))
    assert look(watch, _7="REQUEUED") == {}
    programs(squeue="echo '7|BadConstraints|cpu1'; echo '8|BadConstraints|'")
    watch.pending_since -= 11  # seconds
    given_up = look(watch, _7="PENDING", _8="PENDING")
    assert list(given_up) == ["7"]
    assert "Slurm could not start it there" in given_up["7"]


def test_a_preempted_job_is_requeued(programs):
    called = programs(squeue=GONE, scontrol="")
    watch = QueueWatch("a-run", BadNodes(), logging.getLogger("test"))
    assert look(watch, _3="PREEMPTED", _4="RUNNING") == {}
    assert called() == ["squeue --jobs=3 --noheader --format=%T", "scontrol requeue 3"]


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_does_not_come_back_is_given_up(programs, state):
    programs(squeue=GONE, scontrol="exit 1")
    watch = QueueWatch("a-run", BadNodes(), logging.getLogger("test"))
    if state == "NODE_FAIL":  # Slurm puts it back within a moment
        assert look(watch, _3=state) == {}
    assert look(watch, _3=state) == {"3": ""}


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_while_slurmctld_is_away_no_job_is_given_up(programs, state):
    programs(squeue="echo Unable to contact slurm controller >&2; exit 1", scontrol="exit 1")
    watch = QueueWatch("a-run", BadNodes(), logging.getLogger("test"))
    for _ in range(3):
        assert look(watch, _3=state) == {}


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_a_preempted_job_that_is_back_already_is_left_alone(programs, state):
    """Accounting may be behind, and a requeue would end the job that runs again."""
    called = programs(squeue=f"echo {state}", scontrol="")
    watch = QueueWatch("a-run", BadNodes(), logging.getLogger("test"))
    assert look(watch, _3="PREEMPTED") == {}
    assert not any(call.startswith("scontrol") for call in called())


def test_a_long_wait_is_looked_at_ever_more_rarely(queue, monkeypatch):
    watch, called = queue
    now = time.monotonic()
    looks = []
    for minute in range(61):
        monkeypatch.setattr(queue_watch.time, "monotonic", lambda m=minute: now + 60 * m)
        look(watch, _1="PENDING")
        if len([c for c in called() if c.startswith("squeue")]) > len(looks):
            looks.append(minute)
    assert looks == [1, 2, 4, 8, 16, 32]


def test_each_reason_that_does_not_pass_is_told_once(programs, caplog):
    reasons = "Priority Resources QOSMaxWallDurationPerJobLimit PartitionDown JobHeldUser".split()
    reasons += ["AssocMaxJobsLimit"]
    lines = "; ".join(f"echo '{job}|{reason}|'" for job, reason in enumerate(reasons * 2))
    programs(squeue=lines)
    watch = QueueWatch("a-run", BadNodes(), logging.getLogger("test"))
    for _ in range(2):
        assert watch.look_at_pending(set("0123456789")) == {}
    told = [record.message for record in caplog.records]
    assert [line.split(" (")[0] for line in told] == [
        "Slurm job 2 waits: QOSMaxWallDurationPerJobLimit",
        "Slurm job 3 waits: PartitionDown",
        "Slurm job 4 waits: JobHeldUser",
        "Slurm job 5 waits: AssocMaxJobsLimit",
    ]
    assert "ask for less time" in told[0]
    assert "a driver (make submit) is one of them" in told[3]


@pytest.mark.parametrize("node", ["None assigned", "", "cpu[1-2]", "(null)"])
def test_what_is_no_node_is_never_excluded(node):
    """With such a word in `--exclude`, every submission fails."""
    nodes = BadNodes()
    assert not nodes.add(node, "7", "why")
    assert list(nodes) == []
    assert nodes.report() == ""
