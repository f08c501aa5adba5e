"""Jobs that would wait in the queue forever: requeued, released, or given up, and reported.

It looks closer only at what a status query has just seen: a job that was preempted, whose node has
failed, that is back in the queue, or that has waited there for long.
"""

import re
import time
from collections import Counter

from lib.cluster import slurm
from lib.cluster.bad_nodes import BadNodes
from lib.cluster.polling import Status

HELD = "launch failed requeued held"
MOST_RELEASES = 2  # of one job
COULD_NOT_START = "Slurm could not start it there (a Prolog, or Slurm's own daemon, failed)"

# After so many seconds in the queue, the reason is asked for; then after twice as many, and so on.
PATIENCE = 60.0
AFTER_RELEASE = 10.0  # the same where a job has been released: it may have no node left
NO_NODE_LEFT = "BadConstraints"  # Slurm's reason where a job excludes all nodes
# Reasons that pass when other jobs end.
ORDINARY = re.compile(r"None|Priority|Resources|BeginTime|JobArrayTaskLimit|Dependency|Prolog|\(.*")
# Those that do not, as far as they are known, and what to do.
HOPELESS = {
    r"Wall|PartitionTimeLimit": "ask for less time: runtime in the config, or another partition",
    r"PartitionDown|PartitionInactive": "the partition takes no jobs now: choose another, or wait",
    r"Max\w*Per(Job|Node)|PartitionNodeLimit|BadConstraints": "ask for less, or for another QoS",
    r"Grp\w*Minutes|Grp\w*RunMins|Max\w*Mins": "the time of the account is used up",
    r"MaxJobs": "so many of your jobs may run at a time, and a driver (make submit) is one of them",
    r"Invalid|NotAllowed|NotPermitted": "check the account and the QoS in the profile",
    r"ReservationDeleted": "the reservation has ended",
    r"JobHeld": "it is held: scontrol release",
}  # fmt: skip


class QueueWatch:
    """Watches the jobs of one run of Snakemake."""

    def __init__(self, run_id: str, bad_nodes: BadNodes, logger):
        self.run_id, self.bad_nodes, self.logger = run_id, bad_nodes, logger
        self.last_states: dict[str, str] = {}
        self.releases: Counter[str] = Counter()
        self.told: set[str] = set()
        self.patience = PATIENCE
        self.pending_since = time.monotonic()

    def look(self, states: dict[str, Status]) -> dict[str, str]:
        """Act on what a status query says of the jobs; return which are given up, and why.

        An empty reason: Slurm will not start the job again, and it may be submitted again.
        """
        given_up = {
            job: ""
            for job, status in states.items()
            if status.state in ("PREEMPTED", "NODE_FAIL") and not self.comes_back(job, status.state)
        }
        back = any(self._is_back(job, status.state) for job, status in states.items())
        if back or self._is_overdue(states):
            given_up |= self.look_at_pending(set(states))
        self.last_states = {job: status.state for job, status in states.items()}
        return given_up

    def comes_back(self, job: str, state: str) -> bool:
        """Return whether Slurm starts a job again that it has taken from its node.

        Accounting may be behind, or slurmctld away: only a job that is surely not in the queue is
        given up, or requeued if its partition canceled it to preempt it. Slurm itself requeues
        the jobs of a node that has failed, which may take a moment.
        """
        known = slurm.run(["squeue", f"--jobs={job}", "--noheader", "--format=%T"])
        gone = "Invalid job id" in known.stderr or (known.ok and not known.stdout.strip())
        if not gone or (state == "NODE_FAIL" and self.last_states.get(job) != state):
            return True
        if state != "PREEMPTED" or not slurm.run(["scontrol", "requeue", job]).ok:
            return False
        self.logger.info(f"Slurm job {job} was preempted: it is requeued")
        return True

    def _is_back(self, job: str, state: str) -> bool:
        last = self.last_states.get(job, "PENDING")
        return state == "REQUEUED" or (state == "PENDING" and last != "PENDING")

    def _is_overdue(self, states: dict[str, Status]) -> bool:
        """Return whether jobs have been pending for so long that one should ask why."""
        if "PENDING" not in {status.state for status in states.values()}:
            self.pending_since, self.patience = time.monotonic(), PATIENCE
            return False
        if time.monotonic() - self.pending_since < self.patience:
            return False
        self.patience *= 2
        return True

    def look_at_pending(self, ours: set[str]) -> dict[str, str]:
        """Release what is held after a failed start, and tell why others wait, once for a reason.

        A job that its owner holds is left alone.
        """
        query = [*("squeue", "--all", f"--name={self.run_id}"), "--states=PENDING", "--noheader"]
        given_up = {}
        for line in slurm.run([*query, "--format=%i|%r|%x"]).stdout.splitlines():
            job, reason, excluded = line.split("|")
            if reason == HELD and job in ours:
                why = self.start_again(job, excluded)
                given_up |= {job: why} if why else {}
            elif reason == NO_NODE_LEFT and self.releases[job]:
                given_up[job] = COULD_NOT_START
            elif not ORDINARY.fullmatch(reason) and reason not in self.told:
                self.told.add(reason)
                self.logger.warning(f"Slurm job {job} waits: {reason}{advice(reason)}")
        return given_up

    def start_again(self, job: str, excluded: str) -> str:
        """Release a job that a node could not start, for other nodes; return why not, if so.

        `excluded` are the nodes that the job excludes already, as squeue says it.
        """
        node = last_node(job)
        is_node = self.bad_nodes.add(node, job, COULD_NOT_START)
        self.releases[job] += 1
        if self.releases[job] > MOST_RELEASES:
            return f"{COULD_NOT_START}: it was released {MOST_RELEASES} times"
        if is_node:
            nodes = [*sorted(self.bad_nodes), *([excluded] if excluded[:1].isalnum() else [])]
            slurm.run(["scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(nodes)}"])
        self.logger.info(f"Slurm job {job} was held after a failed start: releasing it")
        slurm.run(["scontrol", "release", job])
        self.pending_since, self.patience = time.monotonic(), AFTER_RELEASE
        return ""


def advice(reason: str) -> str:
    """Return what to do about a reason that does not pass; nothing about any other."""
    return next((f" ({what})" for words, what in HOPELESS.items() if re.search(words, reason)), "")


def last_node(job: str) -> str:
    """Return the node on which Slurm last tried to start a job, if accounting knows it."""
    query = ["sacct", "-X", "-n", "-P", "--duplicates", f"--jobs={job}", "--format=NodeList"]
    nodes = [line for line in slurm.run(query).stdout.split("\n") if "assigned" not in line]
    return next((node for node in reversed(nodes) if node), "")
