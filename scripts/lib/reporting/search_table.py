"""Reads sweep.csv, and says what was searched: the sentences and the figure of the report."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import NullFormatter, NullLocator

from lib.core.errors import UserError
from lib.core.metric import Metric
from lib.reporting.figures import COLORS, MARKERS, WIDTH, Figure, finish
from lib.reporting.search import COLUMNS, LAST_COLUMNS

PANELS = 3  # beside each other
MOST_TICKS = 6  # searched numbers that are the ticks of their axis
WIDE_RANGE = 8  # from which a searched number has a logarithmic axis


@dataclass(frozen=True)
class SearchTable:
    """What sweep.csv says of one search.

    Attributes:
        name: of the searched experiment, and the fold, where there are folds.
        experiment: its name alone.
        keys: the searched settings.
        points: a row for each point, the best first.
    """

    name: str
    experiment: str
    keys: list[str]
    points: list[dict]

    @property
    def best(self) -> dict:
        """The point that is chosen."""
        return self.points[0]

    @property
    def metric(self) -> Metric:
        """By which it was chosen."""
        return Metric(self.best["metric"])

    def sentences(self) -> list[str]:
        """Return what was chosen, by how much it leads, and how far to trust that."""
        best, others, text_of = self.best, self.points[1:], self.metric.text
        text = (
            f"{self.name}: of {len(self.points)} points, {best['point']} is the best on the "
            f"validation images: {self.metric.words} {text_of(best['metric_value'])}"
        )
        if others:
            following = others[0]
            text += (
                f", that of the next, {following['point']}, {text_of(following['metric_value'])}"
            )
        caution = (
            "As the best of many, it is partly the best by chance, and its value on the validation "
            "images is too good as a forecast for new images: by about "
            f"{self.metric.difference_text(max(0.0, best['bias']))}, by a bootstrap of the choice. "
            "What it does on the test images, which had no part in the choice, is in the summary."
        )
        return [f"{text}.", caution]


def read(path: Path) -> list[SearchTable]:
    """Read the searches of a study.

    Raises:
        UserError: the file is missing or corrupt; the message names it.
    """
    try:
        table = pd.read_csv(path, dtype={"experiment": str, "point": str, "seeds": str})
        table[[*COLUMNS, *LAST_COLUMNS]]  # a missing column raises a KeyError
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    keys = [name for name in table.columns if name not in (*COLUMNS, *LAST_COLUMNS, "fold")]
    places = ["experiment", "fold"] if "fold" in table else ["experiment"]
    found = []
    for (experiment, *fold), some in table.groupby(places, sort=False):
        name = ", fold ".join(map(str, [experiment, *fold]))
        searched = [key for key in keys if some[key].notna().any()]
        found.append(SearchTable(name, experiment, searched, some.to_dict("records")))
    return found


def shown_as(searches: list[SearchTable]) -> dict[tuple[str, int], str]:
    """Return the names of searches by the points, and folds, that stand for them in a report.

    Where each fold has a choice of its own, what was chosen is one experiment: the search.
    """
    return {
        (each.best["point"], each.best["fold"]): each.experiment
        for each in searches
        if "fold" in each.best
    }


def draw(searches: list[SearchTable]) -> Figure:
    """Draw the validation metric of each point against each searched setting."""
    panels = [(each, key) for each in searches for key in each.keys]
    rows = math.ceil(len(panels) / PANELS)
    columns = min(PANELS, len(panels))
    figure, axes = plt.subplots(
        rows,
        columns,
        squeeze=False,
        figsize=(WIDTH * 1.6 * columns / PANELS, 0.3 + 1.9 * rows),
    )
    for axis, (search, key) in zip(axes.flat, panels, strict=False):
        _panel(axis, search, key, titled=len(searches) > 1)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    chosen = ", ".join(f"{each.best['point']} of {len(each.points)} points" for each in searches)
    what = f"Validation {searches[0].metric.words}"
    alt = f"{what} against each searched setting. Chosen: {chosen}."
    return finish(figure, "search", f"{what} by searched setting", alt)


def _panel(axis, search: SearchTable, key: str, titled: bool) -> None:
    values = [_value(point[key]) for point in search.points]
    numbers = all(isinstance(value, float) for value in values)
    names = list(dict.fromkeys(sorted(values, key=str)))
    places = values if numbers else [names.index(value) for value in values]
    factor, unit = search.metric.factor, search.metric.unit
    heights = [factor * point["metric_value"] for point in search.points]
    for point, x, y in zip(search.points, places, heights, strict=True):
        ends = factor * point["metric_low"], factor * point["metric_high"]
        axis.plot((x, x), ends, color=COLORS[0], alpha=0.25, linewidth=2)
        axis.plot(x, y, MARKERS[0], color=COLORS[0], markersize=4, alpha=0.7)
    axis.plot(places[0], heights[0], MARKERS[2], color=COLORS[1], markersize=7)
    if not numbers:
        axis.set_xticks(range(len(names)), [str(name)[:16] for name in names])
        axis.margins(x=0.2)
    elif min(values) > 0 and max(values) >= WIDE_RANGE * min(values):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    if numbers and len(names) <= MOST_TICKS:
        axis.set_xticks(names)
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel(f"{search.name}: {key}" if titled else key)
    if axis.get_subplotspec().is_first_col():
        axis.set_ylabel(f"validation {search.metric.words}{f' ({unit})' if unit else ''}")


def _value(cell) -> float | str:
    """Return a searched value: a number, or the text of anything else."""
    if isinstance(cell, bool) or cell != cell:  # nan: null
        return str(cell) if isinstance(cell, bool) else "none"
    try:
        return float(cell)
    except (TypeError, ValueError):
        return cell if isinstance(cell, str) else json.dumps(cell)
