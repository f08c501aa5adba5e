"""How long each fuzz test looks for a counterexample."""

import os


def seconds() -> float:
    return float(os.environ.get("FUZZ_MINUTES", "0.4")) * 60
