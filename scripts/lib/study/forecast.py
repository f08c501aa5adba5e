"""How many runs the searches of a study are, and how long they will take."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean

from lib.core import durations
from lib.core.run_state import RunState
from lib.core.seeds import Run
from lib.study.study import Study


def lines(study: Study, states: Mapping[Run, RunState]) -> list[str]:
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


def time_left(study: Study, states: Mapping[Run, RunState]) -> list[str]:
    """Return how long the runs that are to be trained will take, one after the other.

    By what an epoch of the same network has taken, in this study: nothing is said of another.
    """
    trained, left = defaultdict(list), defaultdict(list)
    for (experiment, seed), state in states.items():
        network = study.experiments[experiment].settings(seed).model["name"]
        if state.record and not state.record["diverged"]:
            trained[network].append(state.record["train_size"] / state.record["images_per_second"])
        if state.left == "train":
            left[network].append((experiment, seed))
    seconds, known, count = 0.0, 0, 0
    for network in left.keys() & trained.keys():
        epochs = sum(study.experiments[name].settings(seed).epochs for name, seed in left[network])
        seconds += epochs * fmean(trained[network])
        known, count = known + len(trained[network]), count + len(left[network])
    if not count:
        return []
    return [
        f"{count} runs are to be trained: about {durations.in_words(seconds)} of training in all, "
        f"by what {known} similar runs took"
    ]
