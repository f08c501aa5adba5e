"""Choose the best point of each search, by its metric on the validation images.

    python scripts/choose.py --searches "$(cat searches.json)" --data results/data/MNIST.safetensors

The runs of all points must be trained. The metric of a point is the mean over its seeds; of equal
points, the one with the smaller loss is chosen. Where the data has folds, each has a choice of its
own, by images of its own training set. The test set is not looked at. A training that has
diverged counts as wrong for each image, and has the worst value of the metric.

The checkpoints of these runs are removed, as they are complete.

OUTPUT/sweep.csv   one row per point, the best first: settings, metric, rank, and what is chosen
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import lib.core.command_line as command_line  # first, for Ctrl-C

import numpy as np

from lib.core import metric as metrics
from lib.core import records, sweep
from lib.core.errors import UserError
from lib.core.files import write_csv
from lib.core.layout import SEARCH_TABLE, Layout, RunFiles
from lib.core.metric import Metric
from lib.core.run_state import read_trained
from lib.core.seeds import Run, Seed, SeedAndFold, parts
from lib.core.settings import Settings
from lib.data.tensor_file import TensorFile
from lib.reporting import search
from lib.reporting.finished_runs import PREDICTIONS, read_probabilities, read_table
from lib.reporting.pseudo_values import pseudo_values
from lib.training.measures import Answers

if TYPE_CHECKING:
    from lib.data import prepared


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_results(parser)
    add(
        "--searches",
        type=json.loads,
        required=True,
        metavar="JSON",
        help="by name of the searched experiment: its sweep, its settings, and its seeds: numbers, "
        "or pairs of seed and fold",
    )
    add("--output", type=Path, metavar="DIR", help="the folder to write to (default: RESULTS)")
    add("--data", type=Path, required=True, metavar="FILE", help="the file that they trained on")
    metrics.add_arguments(parser)
    args = parser.parse_args()

    layout = Layout(args.results)
    classes = json.loads(TensorFile(args.data).metadata["classes"])
    metric = metrics.parse(args.metric, classes)
    positive = metrics.positive_class(args.positive, classes)
    reader = Reader(layout, metric, args.data, classes, positive)
    table, columns, trained = [], list(search.COLUMNS), []
    for name, each in args.searches.items():
        points = sweep.points(name, each["settings"], each["sweep"])
        for fold, seeds in by_fold(each["seeds"]).items():
            trained += [(point.name, seed) for point in points for seed in seeds]
            ranking = search.rank([reader.point(point, seeds) for point in points])
            for row, point in zip(search.rows(name, ranking, fold), ranking.points, strict=True):
                table.append(row | {key: _cell(value) for key, value in point.values.items()})
            columns += [key for key in points[0].values if key not in columns]
            print(choice(name if fold is None else f"{name}, fold {fold}", ranking, metric))
    columns += search.LAST_COLUMNS + (["fold"] if any("fold" in row for row in table) else [])
    write_csv(Layout(args.output or args.results).table(SEARCH_TABLE), columns, table)
    remove_leftovers(layout, trained)


def by_fold(given: list) -> dict[int | None, list[Seed]]:
    """Return the seeds of each fold; without folds, all of them.

    Args:
        given: of `--searches`: numbers, or pairs of a seed and a fold.
    """
    found: dict[int | None, list[Seed]] = {}
    for each in given:
        seed = SeedAndFold(*each) if isinstance(each, list) else each
        found.setdefault(parts(seed)[1], []).append(seed)
    return found


def choice(name: str, ranking: search.Ranking, metric: Metric) -> str:
    """Return what is chosen, in words.

    Raises:
        UserError: all trainings have diverged.
    """
    best, points = ranking.best, len(ranking.points)
    if best.diverged == len(best.seeds):
        raise UserError(
            f"search {name}: all trainings of all its points have diverged: search smaller "
            "learning rates"
        )
    return (
        f"{name}: {best.name} is the best of {points} points on the validation images, with "
        f"{metric.text(best.value)} ({metric.words}); as a forecast, that is about "
        f"{metric.difference_text(max(0.0, ranking.bias))} too good"
    )


@dataclass(frozen=True)
class Reader:
    """Reads what the runs of points have said of the validation images.

    Attributes:
        layout: where they are.
        metric: by which the points are compared.
        data: the prepared data set.
        classes: their names.
        positive: the number of the positive class; None with more than two.
    """

    layout: Layout
    metric: Metric
    data: Path
    classes: list[str]
    positive: int | None

    def point(self, point: sweep.Point, seeds: list[Seed]) -> search.PointResult:
        """Read the runs of a point.

        Raises:
            UserError: a file is missing, or not as it was written, or has no validation images, or
                the metric cannot be computed for them.
        """
        right, shares, losses, seconds, diverged = [], [], [], 0.0, 0
        for seed in seeds:
            files = self.layout.run(point.name, seed)
            record = read_trained(files, verify="all but weights")
            seconds += record["train_seconds"]
            if record["diverged"]:
                diverged += 1
                right.append(np.zeros(record["validation_size"], dtype=bool))
                shares.append(np.full(record["validation_size"], self.metric.worst))
                losses.append(float("inf"))
                continue
            answers = self.answers(files, record)
            right.append(answers.prediction == answers.labels)
            found = pseudo_values(self.metric, answers)
            if found is None:
                raise UserError(
                    f"metric: there is no {self.metric.name} of the validation images of "
                    f"{files.record}: none of them is of the class, or all are"
                )
            shares.append(found)
            history = read_table(files.history, {"loss": float})
            losses.append(float(history["loss"].iloc[records.kept_row(record)]))
        if len({len(each) for each in right}) > 1:
            folder = self.layout.run(point.name, seeds[0]).folder.parent
            raise UserError(f"{folder}: other images per seed")
        means = [float(each.mean()) for each in shares]
        values = (np.stack(right), self.metric, means, np.stack(shares).astype(np.float32))
        loss = float(np.mean(losses))
        return search.PointResult(point.name, point.values, seeds, *values, loss, seconds, diverged)

    def answers(self, files: RunFiles, record: dict) -> Answers:
        """Return what a run has said of the validation images.

        Earlier versions have kept the winners only. Where these are not enough, its network is
        asked again.
        """
        about = (self.classes, self.positive)
        if files.validation.name not in record["files"] and not self.metric.needs_probabilities:
            table = read_table(files.earlier_validation, PREDICTIONS)
            labels, prediction = table["label"].to_numpy(), table["prediction"].to_numpy()
            return Answers(labels, prediction, np.empty((len(labels), 0)), *about)
        if files.validation.name in record["files"]:
            found = read_probabilities(files.validation)
            labels, sure = found["labels"], found["probabilities"]
        else:
            labels, sure = self.asked_again(files)
        return Answers(labels, sure.argmax(axis=1), sure, *about)

    def asked_again(self, files: RunFiles) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and probabilities of the validation images, by the weights of a run."""
        import torch  # it takes seconds

        from lib.training import network

        print(f"{files.folder} is of an earlier version: it classifies images again")
        settings = Settings.of(read_trained(files, verify="all")["settings"])
        held_out = network.splits(self.dataset, settings)[1]
        where = (len(self.classes), files.weights, torch.device("cpu"))
        sure = network.evaluate_split(settings, held_out, *where)[2]
        return held_out.labels.numpy(), sure.float().numpy()

    @cached_property
    def dataset(self) -> "prepared.Dataset":
        """The prepared data set. Only runs of an earlier version need it."""
        from lib.data import prepared

        return prepared.load(self.data)


def remove_leftovers(layout: Layout, runs: list[Run]) -> None:
    """Remove from what the trainings would resume: most of the points are never evaluated."""
    for run in runs:
        for file in layout.run(*run).temporary:
            file.unlink(missing_ok=True)


def _cell(value):
    """Return a searched value for a table: a mapping or a list as JSON."""
    return json.dumps(value) if isinstance(value, dict | list) else value


if __name__ == "__main__":
    command_line.run(main)
