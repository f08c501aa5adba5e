"""How long each fuzz test looks for failures."""

import os


def seconds() -> float:
    """Return the seconds that one test takes: FUZZ_MINUTES, or 6 seconds."""
    return float(os.environ.get("FUZZ_MINUTES", "0.1")) * 60
