"""Choose the best point of each search, by its accuracy on the validation images.

    python scripts/choose.py --searches "$(cat searches.json)"

The runs of all points must be trained. The accuracy of a point is the mean over its seeds; of equal
points, the one with the smaller loss is chosen. The test set is not looked at. A training that has
diverged counts as wrong for each image.

The checkpoints of these runs are removed, as they are complete.

OUTPUT/sweep.csv   one row per point, the best first: settings, accuracy, rank, and what is chosen
"""

import json
from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

import numpy as np

from lib.core import sweep
from lib.core.errors import UserError
from lib.core.files import write_csv
from lib.core.layout import SEARCH_TABLE, Layout
from lib.core.run_state import read_trained
from lib.reporting import search
from lib.reporting.finished_runs import PREDICTIONS, read_table


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
        help="by name of the searched experiment: its sweep, its settings, and its seeds",
    )
    add("--output", type=Path, metavar="DIR", help="the folder to write to (default: RESULTS)")
    args = parser.parse_args()

    layout = Layout(args.results)
    table, columns = [], list(search.COLUMNS)
    for name, each in args.searches.items():
        points = sweep.points(name, each["settings"], each["sweep"])
        ranking = search.rank([read_point(layout, point, each["seeds"]) for point in points])
        for row, point in zip(search.rows(name, ranking), ranking.points, strict=True):
            table.append(row | {key: _cell(value) for key, value in point.values.items()})
        columns += [key for key in points[0].values if key not in columns]
        best = ranking.best
        if best.diverged == len(best.seeds):
            raise UserError(
                f"search {name}: all trainings of all its points have diverged: search "
                "smaller learning rates"
            )
        print(
            f"{name}: {best.name} is the best of {len(points)} points on the validation images, "
            f"with {100 * best.accuracy:.2f}%; as a forecast, that is about "
            f"{100 * ranking.bias:.2f} percentage points too high"
        )
    write_csv(Layout(args.output or args.results).table(SEARCH_TABLE), columns, table)
    remove_leftovers(layout, [(row["point"], row["seeds"].split()) for row in table])


def read_point(layout: Layout, point: sweep.Point, seeds: list[int]) -> search.PointResult:
    """Read the runs of a point.

    Raises:
        UserError: a file is missing, or not as it was written, or has no validation images.
    """
    right, losses, seconds, diverged = [], [], 0.0, 0
    for seed in seeds:
        files = layout.run(point.name, seed)
        record = read_trained(files, verify="all but weights")
        seconds += record["train_seconds"]
        if record["diverged"]:
            diverged += 1
            right.append(np.zeros(record["validation_size"], dtype=bool))
            losses.append(float("inf"))
            continue
        predictions = read_table(files.validation, PREDICTIONS)
        right.append((predictions["label"] == predictions["prediction"]).to_numpy())
        losses.append(float(read_table(files.history, {"loss": float})["loss"].iloc[-1]))
    if len({len(each) for each in right}) > 1:
        raise UserError(f"{layout.run(point.name, seeds[0]).folder.parent}: other images per seed")
    return search.PointResult(
        point.name, point.values, seeds, np.stack(right), float(np.mean(losses)), seconds, diverged
    )


def remove_leftovers(layout: Layout, points: list[tuple[str, list[str]]]) -> None:
    """Remove from what the trainings would resume: most of the points are never evaluated."""
    for name, seeds in points:
        for seed in seeds:
            for file in layout.run(name, seed).temporary:
                file.unlink(missing_ok=True)


def _cell(value):
    """Return a searched value for a table: a mapping or a list as JSON."""
    return json.dumps(value) if isinstance(value, dict | list) else value


if __name__ == "__main__":
    command_line.run(main)
