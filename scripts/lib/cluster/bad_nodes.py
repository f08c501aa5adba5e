"""The nodes on which a job could not run: no other job of this run of Snakemake is sent there."""

import re
from collections import defaultdict
from collections.abc import Iterator

# Slurm says `None assigned`, or nothing, of a job that never had a node, and `cpu[1-2]` of several.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_name(node: str) -> bool:
    """Return whether what Slurm says is the name of one node."""
    return bool(NAME.fullmatch(node))


class BadNodes:
    """The nodes, and what happened there."""

    def __init__(self):
        self.failures: dict[str, dict[str, str]] = defaultdict(dict)  # by node and job

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(list(self.failures))

    def add(self, node: str, job_id: str, why: str) -> bool:
        """Add a node; return False for what is the name of none."""
        if not is_name(node):
            return False
        self.failures[node][job_id] = why
        return True

    def report(self) -> str:
        """Return what to tell the support of the cluster; nothing where all nodes are well."""
        lines = []
        for node, failures in sorted(self.failures.items()):
            lines.append(f"Jobs could not run on the node {node}, which was not used any more:")
            lines += [f"  Slurm job {job}: {why}" for job, why in failures.items()]
        return "\n".join([*lines, "Tell the support of the cluster."]) if lines else ""
