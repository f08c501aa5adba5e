"""Hints for names that are not known."""

import difflib
from typing import Any


def nearest(word: Any, valid: list[str]) -> str:
    """Return `; valid are: ...`, the nearest of the valid words first."""
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid are: {', '.join(valid)}"
