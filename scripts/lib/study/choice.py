"""Which point each search has chosen, as `scripts/choose.py` has written it."""

import csv

from lib.core.layout import SEARCH_TABLE
from lib.study.study import Study


def with_search_results(study: Study) -> Study:
    """Return a study with what its searches have chosen by now."""
    return study.with_choice(read(study)) if study.searches else study


def read(study: Study) -> dict[str, str]:
    """Return the chosen point of each search of a study, as far as there is one.

    A choice among other points, or of a file that cannot be read, is none.
    """
    if not study.searches:
        return {}
    try:
        with study.layout.table(SEARCH_TABLE).open(newline="", encoding="utf-8") as file:
            rows = [
                (row["experiment"], row["point"], row["chosen"]) for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, csv.Error):
        return {}
    chosen = {}
    for name, search in study.searches.items():
        points = [point for experiment, point, _ in rows if experiment == name]
        best = [point for experiment, point, mark in rows if (experiment, mark) == (name, "True")]
        if set(points) == set(search.points) and len(best) == 1:
            chosen[name] = best[0]
    return chosen
