"""The verdict in sentences: which experiment is better, by how much, and how certain that is."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from lib.core.layout import Layout
from lib.core.metric import ACCURACY, RANKING, Metric
from lib.core.seeds import Run, parts

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


def reports_on(files: Layout, runs: list[Run]) -> bool:
    """Return whether a study's report, if it exists, is of exactly these runs, none missing."""
    try:
        there = [row["run"] for row in _rows(files.table("report.csv"))]
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return False
    wanted = [files.run_path(*run) for run in runs]
    # What searches have chosen by fold is in the order of the folds, not of the points.
    in_order = sorted if any(parts(seed)[1] for _, seed in runs) else list
    return in_order(there) == in_order(wanted) and not is_incomplete(files)


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
        text
        for text in (
            values(summary),
            about_positive(summary),
            other_order(summary),
            *pairs(comparisons),
            advice(comparisons),
        )
        if text
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


def metric_of(rows: list[dict]) -> Metric:
    """Return the metric that the rows of a table are about; before there was a choice, accuracy."""
    return Metric(rows[0].get("metric") or ACCURACY.name) if rows else ACCURACY


def best_first(summary: list[dict]) -> list[dict]:
    """Return the rows of the experiments that have a value of the metric, the best first."""
    metric, key = metric_of(summary), f"{metric_of(summary).name}_mean"
    rows = [row for row in summary if int(row["runs"]) and known(row.get(key))]
    return sorted(rows, key=lambda row: metric.best_first(float(row[key])))


def values(summary: list[dict]) -> str:
    """Return the metric of each experiment, best first. Of many, only the best are named."""
    metric, rows = metric_of(summary), best_first(summary)
    if not rows:
        return f"There is no {metric.words}: it takes test images of the class, and of others."
    ends = [tuple(row[f"{metric.name}_{end}"] for end in ("mean", "low", "high")) for row in rows]
    named, others = rows[:NAMED], ends[NAMED:]
    scale = Scale.of(metric, [(low, high) for _, low, high in ends[:NAMED] if known(low)])
    text = ""
    for place, (row, (mean, low, high)) in enumerate(zip(named, ends, strict=False)):
        value = f"{scale.number(mean)}{scale.unit}"
        text += first_words(metric, row, value) if place == 0 else more_words(metric, row, value)
        interval = f"{scale.number(low)}\N{EN DASH}{scale.number(high)}" if known(low) else ""
        if interval and not any(known(each[1]) for each in ends[:place]):
            interval = f"95% interval {interval}"
        about = _about(row, named[:place], interval)
        text += f" ({about})" if about else ""
    if others:
        worst, best = (f"{scale.number(others[i][0])}{scale.unit}" for i in (-1, 0))
        text += f", the other {len(others)} from {worst} to {best}"
    return f"{text}."


def first_words(metric: Metric, row: dict, value: str) -> str:
    """Return what begins the sentence on a metric, with the value of the best experiment."""
    name = row["experiment"]
    if metric == ACCURACY:
        return f"The {name} classifies {value} of the test images correctly"
    if metric.kind == "recall":
        return f"The {name} finds {value} of the test images of class {metric.of_class}"
    return f"The {metric.words} of the {name} is {value}"


def more_words(metric: Metric, row: dict, value: str) -> str:
    """Return what goes on with the value of another experiment."""
    of = "" if metric == ACCURACY or metric.kind == "recall" else "that of "
    return f", {of}the {row['experiment']} {'is ' if of else ''}{value}"


def _about(row: dict, before: list[dict], interval: str) -> str:
    """Return a value's interval and number of seeds, without repeating what is unchanged."""
    parts, runs = [interval] if interval else [], int(row["runs"])
    if runs != (int(before[-1]["runs"]) if before else 1):
        parts.append(f"mean of {runs} seeds" if runs > 1 else "one seed")
        if folds := folds_of(row):
            parts[-1] = f"mean of {folds} folds, {seeds_in_folds(runs, folds)}"
        elif runs == 2:
            parts[-1] += ": too few for an interval"
    return "; ".join(parts)


def folds_of(row: dict) -> int:
    """Return the number of folds that a row of a table is about; 0 where there are none."""
    return int(row["folds"]) if known(row.get("folds")) else 0


def seeds_in_folds(runs: int, folds: int) -> str:
    """Return how many seeds each fold has, such as `3 seeds each`."""
    return "one seed each" if runs == folds else f"{runs // folds} seeds each"


def about_positive(summary: list[dict]) -> str:
    """Return which of two classes a ranking is of, where that makes a difference."""
    rows = best_first(summary)
    if metric_of(summary).kind not in RANKING or not rows or not known(rows[0].get("positive")):
        return ""
    return (
        f"The positive class is {rows[0]['positive']}: the last one, unless the entry of the "
        "data set names one as `positive`."
    )


def other_order(summary: list[dict]) -> str:
    """Return that the accuracy puts the experiments in another order, if it does."""
    metric, rows = metric_of(summary), best_first(summary)
    by_accuracy = sorted(rows, key=lambda row: -float(row["accuracy_mean"]))
    names = [[row["experiment"] for row in order[:NAMED]] for order in (rows, by_accuracy)]
    if metric == ACCURACY or names[0] == names[1]:
        return ""
    shown = ", ".join(
        f"{row['experiment']} {100 * float(row['accuracy_mean']):.1f}%"
        for row in by_accuracy[:NAMED]
    )
    largest = 100 * float(rows[0]["majority_accuracy"])
    return (
        f"Caution: by accuracy, the order is another: {shown}. Always answering with the largest "
        f"class has an accuracy of {largest:.1f}%."
    )


@dataclass(frozen=True)
class Scale:
    """How the values of a metric are written: in percent, or as they are, with so many decimals."""

    factor: float
    digits: int
    unit: str
    points: str

    @classmethod
    def of(cls, metric: Metric, intervals: list[tuple]) -> "Scale":
        """Return a scale that is fine enough for the narrowest of some intervals."""
        widths = [metric.factor * (float(high) - float(low)) for low, high in intervals]
        digits = decimals(min(widths)) if widths else 1
        points = " percentage points" if metric.in_percent else ""
        return cls(metric.factor, max(digits, 1 if points else 3), metric.unit, points)

    def number(self, value: float | str) -> str:
        """Return a value as it is written, without its unit."""
        return f"{self.factor * float(value):.{self.digits}f}"


def pairs(comparisons: list[dict]) -> list[str]:
    """Return the verdict on each pair. Of many pairs, only count how many differ."""
    tests = sum(known(row["p_value"]) for row in comparisons)
    if len(comparisons) <= NAMED:
        return [pair(row, tests, alone=len(comparisons) == 1) for row in comparisons]
    verdicts = [row["verdict"] for row in comparisons]
    better, worse = (verdicts.count(f"{one} better") for one in "ba")
    untested = {
        "too few seeds": "there are too few seeds",
        "incomplete": "runs are missing",
        "too few images": "a class has too few test images",
        "undefined": "the metric is not defined",
    }
    baseline = comparisons[0]["a"]
    if all(row["a"] == baseline for row in comparisons):
        text = f"Of {len(verdicts)} experiments compared with the first ({baseline}), "
        text += f"{better} {_are(better)} better and {worse} {_are(worse)} worse"
    else:
        text = f"In {better + worse} of {len(verdicts)} pairs of experiments, one is better"
    text += " (Holm-adjusted p < 0.05)"
    text += f"; for {verdicts.count('not shown')}, no difference is shown"
    for name, why in untested.items():
        text += f"; for {verdicts.count(name)}, {why}" if name in verdicts else ""
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
    if row["verdict"] == "too few images":
        return (
            f"No verdict on {a} and {b}: of a class there are too few test images, or groups of "
            f"them, to tell how far the {metric_of([row]).words} depends on them."
        )
    if row["verdict"] == "undefined":
        return f"No verdict on {a} and {b}: there is no {metric_of([row]).words} to compare."
    return difference(row, tests, alone) + caution(row)


def difference(row: dict, tests: int, alone: bool) -> str:
    """Return by how much one of two experiments is better, or that this is not shown."""
    a, b, metric = row["a"], row["b"], metric_of([row])
    value, low, high = (float(row[key]) for key in ENDS)
    if metric.minimized:  # so that the difference tells by how much the first one is better
        value, low, high = -value, -high, -low
    if row["verdict"] == "b better" or (row["verdict"] == "not shown" and value < 0):
        a, b, value, low, high = b, a, -value, -high, -low
    scale = Scale.of(metric, [(low, high)])
    join = "\N{EN DASH}" if low >= 0 else " to "
    interval = f"{scale.number(low)}{join}{scale.number(high)}".replace("-", "\N{MINUS SIGN}")
    about, points = f"({interval}; {_p(row, tests)}; {_what(row)})", scale.points
    if row["verdict"] != "not shown":
        better = "better" if alone else f"better than the {b}"
        return f"The {a} is {better} by {scale.number(value)}{points} {about}."
    text = (
        f"It is not shown that the {a} is better than the {b}: the difference is "
        f"{scale.number(value)}{points} {about}."
    )
    if known(row["detectable_difference"]):
        least = float(row["detectable_difference"])
        least = Scale.of(metric, [(0, least)]).number(least)
        text += (
            f" A true difference of {least}{points} would have been detected with 80% probability."
        )
    return text


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
    runs, folds = (int(row["runs_a"]), int(row["runs_b"])), folds_of(row)
    if folds and runs[0] == runs[1]:
        return f"{folds} folds, {seeds_in_folds(runs[0], folds)}"
    if folds:
        return f"{folds} folds, {runs[0] // folds} and {runs[1] // folds} seeds each"
    if runs == (1, 1):
        return "two trained networks, one seed each"
    return f"{runs[0]} seeds each" if runs[0] == runs[1] else f"{runs[0]} and {runs[1]} seeds"


def capitalized(text: str) -> str:
    """Return a text with its first letter in upper case, and the others as they are."""
    return f"{text[:1].upper()}{text[1:]}"


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
    metric = metric_of(summary)
    head = ["experiment", "runs"]
    head += [] if metric == ACCURACY else [metric.name]
    head += ["accuracy %", "95% interval", "test loss", "train s", "memory MB"]
    rows = [head] + [_cells(row, metric) for row in summary]
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


def _cells(row: dict, metric: Metric) -> list[str]:
    mean = row.get(f"{metric.name}_mean")
    own = [metric.text(float(mean)) if known(mean) else "-"] if metric != ACCURACY else []
    if not int(row["runs"]):
        return [row["experiment"], runs_text(row), *own, *"-----"]
    interval = "-"
    if known(row["accuracy_low"]):
        low, high = (100 * float(row[key]) for key in ("accuracy_low", "accuracy_high"))
        interval = f"{low:.2f} to {high:.2f}"
    return [
        row["experiment"],
        runs_text(row),
        *own,
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
