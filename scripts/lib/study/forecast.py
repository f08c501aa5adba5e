"""How many runs the searches of a study are, and how long they will take."""

from collections import defaultdict
from collections.abc import Container
from contextlib import suppress

from lib.core import records
from lib.core.errors import UserError
from lib.study.study import Study

LOOKED_AT = 50  # runs of a network whose records are read


def lines(study: Study, out_of_date: Container[tuple[str, int]] = ()) -> list[str]:
    """Return a line for each search, and one on the time of all that is to be trained.

    Args:
        study: what it is about.
        out_of_date: runs that are trained, and are to be trained again.
    """
    found = []
    for name, search in study.searches.items():
        points = [each for each in study.experiments if study.experiments[each].search == name]
        runs = sum(len(study.experiments[point].seeds) for point in points)
        found.append(f"Search {name}: {len(search.points)} points, {runs} runs")
    return [*found, *time_left(study, out_of_date)] if found else []


def time_left(study: Study, out_of_date: Container[tuple[str, int]]) -> list[str]:
    """Return how long the runs that are to be trained will take, one after the other.

    By what an epoch of the same network has taken, in this study: nothing is said of another.
    """
    trained, left = defaultdict(list), defaultdict(list)
    for experiment, seed in study.runs:
        network = study.experiments[experiment].model["name"]
        files = study.layout.run(experiment, seed)
        done = files.is_complete("train")
        if done:
            trained[network].append((experiment, seed))
        if not done or (experiment, seed) in out_of_date:
            left[network].append((experiment, seed))
    seconds, known, count = 0.0, 0, 0
    for network in left.keys() & trained.keys():
        per_epoch = []
        for run in trained[network][:LOOKED_AT]:
            with suppress(UserError, KeyError, TypeError):
                record = records.read(study.layout.run(*run).record)
                if not record["diverged"]:
                    per_epoch.append(record["train_seconds"] / record["settings"]["epochs"])
        if per_epoch:
            epochs = sum(study.experiments[name].training["epochs"] for name, _ in left[network])
            seconds += epochs * sum(per_epoch) / len(per_epoch)
            known, count = known + len(per_epoch), count + len(left[network])
    if not count:
        return []
    return [
        f"{count} runs are to be trained: about {duration(seconds)} of training in all, by what "
        f"{known} similar runs took"
    ]


def duration(seconds: float) -> str:
    """Return `40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
