"""How a duration is written for a person."""

import pytest

from lib.core import durations


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.21, "4.2 s"), (9.96, "10 s"), (89, "89 s"), (301, "5 min"), (7510, "2 h 05 min")],
)
def test_a_duration(seconds, words):
    assert durations.in_words(seconds) == words
