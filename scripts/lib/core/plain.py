"""Whether a process is to be a plain one, without what makes it faster. No number depends on it."""

import os

PLAIN = "SLURM_CLASSIFIERS_PLAIN_PROCESS"


def is_plain() -> bool:
    """Return whether the environment asks for a plain process."""
    return bool(os.environ.get(PLAIN))
