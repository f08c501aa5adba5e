"""How long each test with random input searches: FUZZ_MINUTES, or some seconds."""

import os


def seconds() -> float:
    return float(os.environ.get("FUZZ_MINUTES", "0.4")) * 60
