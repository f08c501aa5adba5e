"""The verdict in sentences: which experiment is better, by how much, and how certain that is."""

import csv
import math
from pathlib import Path
from textwrap import fill

from lib.core.layout import Layout

NAMED = 5  # more experiments or comparisons than this are counted, not listed
WIDTH = 96
HUGE = 1e5
ENDS = ("difference", "difference_low", "difference_high")


def verdict_of(files: Layout) -> str:
    """Return the verdict and the summary table of a study's report, for a terminal.

    The text is empty if the report is missing or outdated because only a part of the workflow ran.
    """
    summary, comparisons = (files.table(f"{name}.csv") for name in ("summary", "comparisons"))
    if not all(path.is_file() for path in (files.page, summary, comparisons)):
        return ""
    records = (files.run(*run).evaluation for run in files.runs())
    evaluated = [path.stat().st_mtime for path in records if path.is_file()]
    if files.page.stat().st_mtime < max(evaluated, default=0):
        return ""
    return f"\n{terminal(_rows(summary), _rows(comparisons))}\n\nThe whole report: {files.page}\n"


def is_incomplete(files: Layout) -> bool:
    """Return whether a study's report lacks runs, or has a summary that cannot be read.

    A report that does not exist lacks nothing.
    """
    try:
        return any(known(row.get("missing")) for row in _rows(files.table("summary.csv")))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, csv.Error):
        return True


def reports_on(files: Layout, runs: list[tuple[str, int]]) -> bool:
    """Return whether a study's report, if it exists, is of exactly these runs, none missing."""
    try:
        rows = _rows(files.table("report.csv"))
        there = [(row["experiment"], int(row["seed"])) for row in rows]
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return False
    return there == runs and not is_incomplete(files)


def _rows(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sentences(summary: list[dict], comparisons: list[dict]) -> list[str]:
    """Return the verdict as paragraphs.

    Args:
        summary: the rows of summary.csv, as numbers or as strings read from the file.
        comparisons: the rows of comparisons.csv.
    """
    return [
        text for text in (accuracies(summary), *pairs(comparisons), advice(comparisons)) if text
    ]


def incomplete(summary: list[dict]) -> str:
    """Return that the report is incomplete, and by how much, or nothing if it is complete."""
    missing = len(missing_runs(summary))
    total = missing + sum(int(row["runs"]) for row in summary)
    text = (
        f"This report is incomplete: {missing} of {counted(total, 'run')} {_are(missing)} missing."
    )
    return text if missing else ""


def missing_runs(summary: list[dict], most: int | None = None) -> list[str]:
    """Return each missing run and the reason. Of more than `most`, the others are counted."""
    found = [
        f"{row['experiment']}, {seed_and_reason}"
        for row in summary
        for seed_and_reason in (row.get("missing") or "").split("; ")
        if seed_and_reason
    ]
    more = len(found) - most if most and len(found) > most else 0
    return [*found[:most], f"and {more} more"] if more else found


def accuracies(summary: list[dict]) -> str:
    """Return the accuracy of each experiment, best first. Of many, only the best are named."""
    rows = [row for row in summary if int(row["runs"])]
    rows.sort(key=lambda row: -float(row["accuracy_mean"]))
    named, others = rows[:NAMED], rows[NAMED:]
    widths = [row_width(row) for row in named if known(row["accuracy_low"])]
    digits = decimals(min(widths)) if widths else 1
    text = ""
    for place, row in enumerate(named):
        value = f"{100 * float(row['accuracy_mean']):.{digits}f}%"
        if place == 0:
            text = f"The {row['experiment']} classifies {value} of the test images correctly"
        else:
            text += f", the {row['experiment']} {value}"
        about = _about(row, named[:place], digits)
        text += f" ({about})" if about else ""
    if others:
        least, most = (100 * float(others[i]["accuracy_mean"]) for i in (-1, 0))
        text += f", the other {len(others)} from {least:.{digits}f}% to {most:.{digits}f}%"
    return f"{text}."


def _about(row: dict, before: list[dict], digits: int) -> str:
    """Return an accuracy's interval and number of seeds, without repeating what is unchanged."""
    parts = []
    runs = int(row["runs"])
    if known(row["accuracy_low"]):
        low, high = (100 * float(row[f"accuracy_{end}"]) for end in ("low", "high"))
        label = "" if any(known(each["accuracy_low"]) for each in before) else "95% interval "
        parts.append(f"{label}{low:.{digits}f}\N{EN DASH}{high:.{digits}f}")
    if runs != (int(before[-1]["runs"]) if before else 1):
        parts.append(f"mean of {runs} seeds" if runs > 1 else "one seed")
        parts[-1] += "" if known(row["accuracy_low"]) else ": too few for an interval"
    return "; ".join(parts)


def row_width(row: dict) -> float:
    """Return the width of an experiment's interval, in percentage points."""
    return 100 * (float(row["accuracy_high"]) - float(row["accuracy_low"]))


def pairs(comparisons: list[dict]) -> list[str]:
    """Return the verdict on each pair. Of many pairs, only count how many differ."""
    tests = sum(known(row["p_value"]) for row in comparisons)
    if len(comparisons) <= NAMED:
        return [pair(row, tests, alone=len(comparisons) == 1) for row in comparisons]
    verdicts = [row["verdict"] for row in comparisons]
    better, worse = (verdicts.count(f"{one} better") for one in "ba")
    few, lacking = verdicts.count("too few seeds"), verdicts.count("incomplete")
    baseline = comparisons[0]["a"]
    if all(row["a"] == baseline for row in comparisons):
        text = f"Of {len(verdicts)} experiments compared with the first ({baseline}), "
        text += f"{better} {_are(better)} better and {worse} {_are(worse)} worse"
    else:
        text = f"In {better + worse} of {len(verdicts)} pairs of experiments, one is better"
    text += " (Holm-adjusted p < 0.05)"
    text += f"; for {verdicts.count('not shown')}, no difference is shown"
    text += f"; for {few}, there are too few seeds" if few else ""
    text += f"; for {lacking}, runs are missing" if lacking else ""
    cautions = sum(bool(row["warning"]) for row in comparisons)
    paragraphs = [f"{text}. All of them are in comparisons.csv."]
    if cautions:
        warned = "has a warning" if cautions == 1 else "have warnings"
        paragraphs.append(f"Caution: {cautions} of the pairs {warned}.")
    return paragraphs


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def pair(row: dict, tests: int, alone: bool) -> str:
    """Return which of two experiments is better, or that this is not shown.

    Args:
        row: the row of comparisons.csv.
        tests: the number of comparisons that the p value is adjusted for.
        alone: whether there are only two experiments, so that the worse one need not be named.
    """
    a, b = row["a"], row["b"]
    if row["verdict"] == "incomplete":
        return f"No verdict on {a} and {b}: runs are missing."
    if row["verdict"] == "too few seeds":
        text = (
            f"Too few seeds to compare {a} ({counted(row['runs_a'], 'seed')}) and {b} "
            f"({counted(row['runs_b'], 'seed')}): one seed each compares two trained networks, "
            "three or more seeds each compare the recipes."
        )
        return text + caution(row)
    value, low, high = (100 * float(row[key]) for key in ENDS)
    if row["verdict"] == "b better" or (row["verdict"] == "not shown" and value < 0):
        a, b, value, low, high = b, a, -value, -high, -low
    digits = decimals(high - low)
    join = "\N{EN DASH}" if low >= 0 else " to "
    value, low, high = (f"{number:.{digits}f}" for number in (value, low, high))
    interval = f"{low}{join}{high}"
    interval = interval.replace("-", "\N{MINUS SIGN}")
    test = f"{_p(row, tests)}; {_what(row)}"
    if row["verdict"] != "not shown":
        better = "better" if alone else f"better than the {b}"
        return (
            f"The {a} is {better} by {value} percentage points ({interval}; {test}).{caution(row)}"
        )
    text = (
        f"It is not shown that the {a} is better than the {b}: the difference is {value} "
        f"percentage points ({interval}; {test})."
    )
    if known(row["detectable_difference"]):
        points = 100 * float(row["detectable_difference"])
        text += (
            f" A true difference of {points:.{decimals(points)}f} percentage points would have "
            "been detected with 80% probability."
        )
    return text + caution(row)


def caution(row: dict) -> str:
    """Return a row's warning as a sentence."""
    return f" Caution: {row['warning']}." if row["warning"] else ""


def advice(comparisons: list[dict]) -> str:
    """Return what to do for a comparison of recipes, if there is only one seed each."""
    complete = [row for row in comparisons if row["verdict"] != "incomplete"]
    if not any(int(row["runs_a"]) == int(row["runs_b"]) == 1 for row in complete):
        return ""
    return (
        "One seed each describes these trained networks, not the recipes. To compare the recipes, "
        "set seeds: [1, 2, 3, 4, 5]."
    )


def _p(row: dict, tests: int) -> str:
    name = "McNemar p" if "McNemar" in row["method"] else "p"
    text = p_value(float(row["p_adjusted"]))
    return f"{name} {text}" + (f" adjusted for {tests} comparisons" if tests > 1 else "")


def _what(row: dict) -> str:
    runs = int(row["runs_a"]), int(row["runs_b"])
    if runs == (1, 1):
        return "two trained networks, one seed each"
    return f"{runs[0]} seeds each" if runs[0] == runs[1] else f"{runs[0]} and {runs[1]} seeds"


def counted(number: int | str, noun: str) -> str:
    """Return a number and its noun, such as `1 seed` or `2 seeds`."""
    return f"{int(number)} {noun}{'s' if int(number) > 1 else ''}"


def p_value(p: float) -> str:
    """Return `= 0.03`, or `< 0.0001`."""
    return f"= {p:.2g}" if p >= 0.0001 else "< 0.0001"


def known(value) -> bool:
    """Return whether a cell of a table is not empty."""
    return value not in (None, "")


def decimals(width: float) -> int:
    """Return how many decimals to show of a percentage whose interval has this width."""
    return min(4, max(1, math.ceil(-math.log10(width / 4)))) if width > 0 else 1


def terminal(summary: list[dict], comparisons: list[dict]) -> str:
    """Return the verdict and the summary table as plain text."""
    head = [
        "experiment",
        "runs",
        "accuracy %",
        "95% interval",
        "test loss",
        "train s",
        "memory MB",
    ]
    rows = [head] + [_cells(row) for row in summary]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    text = [fill(paragraph, WIDTH) for paragraph in sentences(summary, comparisons)]
    if incomplete(summary):
        missing = (f"  {each}" for each in missing_runs(summary, NAMED))
        text = ["\n".join([incomplete(summary), *missing]), *text]
    return "\n".join([*text, "", *table])


def _cells(row: dict) -> list[str]:
    if not int(row["runs"]):
        return [row["experiment"], runs_text(row), *"-----"]
    interval = "-"
    if known(row["accuracy_low"]):
        low, high = (100 * float(row[key]) for key in ("accuracy_low", "accuracy_high"))
        interval = f"{low:.2f} to {high:.2f}"
    return [
        row["experiment"],
        runs_text(row),
        f"{100 * float(row['accuracy_mean']):.2f}",
        interval,
        loss_text(float(row["test_loss_mean"])),
        f"{float(row['train_seconds_mean']):.1f}",
        f"{float(row['peak_memory_mb_max']):.0f}",
    ]


def runs_text(row: dict) -> str:
    """Return an experiment's number of runs, such as `5`, or `3 of 5` if two are missing."""
    missing = len(missing_runs([row]))
    return f"{row['runs']} of {int(row['runs']) + missing}" if missing else str(row["runs"])


def loss_text(loss: float) -> str:
    """Return a loss with four decimals, or with four digits where it has exploded."""
    return f"{loss:.4f}" if abs(loss) < HUGE else f"{loss:.4g}"
