"""Which point each search has chosen, as `scripts/choose.py` has written it."""

import csv

from lib.core.layout import SEARCH_TABLE
from lib.study.study import Study


def with_search_results(study: Study) -> Study:
    """Return a study with what its searches have chosen by now."""
    return study.with_choice(read(study)) if study.searches else study


def read(study: Study) -> dict[tuple[str, int | None], str]:
    """Return the chosen point of each search, and fold where there are some, if there is one.

    A choice among other points, or for other folds, or of a file that cannot be read, is none.
    """
    if not study.searches:
        return {}
    try:
        with study.layout.table(SEARCH_TABLE).open(newline="", encoding="utf-8") as file:
            rows = [
                (
                    (row["experiment"], int(row.get("fold") or 0) or None),
                    row["point"],
                    row["chosen"],
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, csv.Error):
        return {}
    chosen = {}
    for name, search in study.searches.items():
        best, folds = {}, {place[1] for place, *_ in rows if place[0] == name}
        for place in ((name, fold) for fold in study.folds):
            points = {point for each, point, _ in rows if each == place}
            marked = [point for each, point, mark in rows if (each, mark) == (place, "True")]
            if points == set(search.points) and len(marked) == 1:
                best[place] = marked[0]
        chosen |= best if folds == set(study.folds) == {fold for _, fold in best} else {}
    return chosen
