"""How a duration is written for a person."""


def in_words(seconds: float) -> str:
    """Return a duration as `4.2 s`, `40 s`, `12 min` or `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
