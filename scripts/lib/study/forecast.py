"""How many runs the searches of a study are, and how long they will take."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

from lib.core import durations, records
from lib.core.errors import UserError
from lib.core.run_state import RunState
from lib.study.study import Study

LOOKED_AT = 50  # runs of a network whose records are read


def lines(study: Study, states: Mapping[tuple[str, int], RunState]) -> list[str]:
    """Return a line for each search, and one on the time of all that is to be trained.

    Args:
        study: what it is about.
        states: of its runs.
    """
    found = []
    for name, search in study.searches.items():
        points = [each for each in study.experiments if study.experiments[each].search == name]
        runs = sum(len(study.experiments[point].seeds) for point in points)
        found.append(f"Search {name}: {len(search.points)} points, {runs} runs")
    return [*found, *time_left(study, states)] if found else []


def time_left(study: Study, states: Mapping[tuple[str, int], RunState]) -> list[str]:
    """Return how long the runs that are to be trained will take, one after the other.

    By what an epoch of the same network has taken, in this study: nothing is said of another.
    """
    trained, left = defaultdict(list), defaultdict(list)
    for (experiment, _), state in states.items():
        network = study.experiments[experiment].recipe.model["name"]
        if state.results:
            trained[network].append(state.files.record)
        if state.left == "train":
            left[network].append(experiment)
    seconds, known, count = 0.0, 0, 0
    for network in left.keys() & trained.keys():
        per_epoch = []
        for path in trained[network][:LOOKED_AT]:
            with suppress(UserError, KeyError, TypeError):
                record = records.read(path)
                if not record["diverged"]:
                    per_epoch.append(record["train_seconds"] / record["settings"]["epochs"])
        if per_epoch:
            epochs = sum(study.experiments[name].recipe.epochs for name in left[network])
            seconds += epochs * sum(per_epoch) / len(per_epoch)
            known, count = known + len(per_epoch), count + len(left[network])
    if not count:
        return []
    return [
        f"{count} runs are to be trained: about {durations.in_words(seconds)} of training in all, "
        f"by what {known} similar runs took"
    ]
