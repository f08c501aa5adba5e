"""Compare the finished runs in tables, figures, and a page that says which network is better.

    python scripts/report.py --data results/data/MNIST.safetensors

reports every run below RESULTS/runs, in alphabetical order. All of them must be finished.

--runs selects runs. `--runs mlp=1,2 cnn=1` selects seeds 1 and 2 of the experiment mlp and seed 1
of cnn. The rows of the tables follow this order. With more than 20 experiments, each one is
compared with the first only.

OUTPUT/report.csv        one row per run
OUTPUT/summary.csv       one row per experiment
OUTPUT/comparisons.csv   one row per pair of experiments
OUTPUT/report.html       the page, a single file
OUTPUT/figures/*.svg     the figures of the page
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from lib.core import command_line
from lib.core.errors import UserError
from lib.core.files import write_csv, write_text
from lib.core.layout import Layout
from lib.reporting import figures, finished_runs, page, tables, verdict


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="the folder that contains runs/ (default: %(default)s)",
    )
    add("--runs", nargs="+", metavar="EXPERIMENT=SEED,SEED", help="the runs (default: all)")
    add("--data", type=Path, required=True, metavar="FILE", help="the prepared dataset of the runs")
    add("--output", type=Path, metavar="DIR", help="the folder to write to (default: RESULTS)")
    add(
        "--command",
        metavar="TEXT",
        help="the command that reproduces the report, shown on the page (default: none)",
    )
    args = parser.parse_args()

    names = (
        finished_runs.parse_runs(args.runs)
        if args.runs
        else finished_runs.discover_runs(args.results)
    )
    experiments = finished_runs.read(args.results, names)
    images = test_images(args.data, experiments)
    write_report(Layout(args.output or args.results), experiments, images, args.command)


def write_report(
    files: Layout,
    experiments: list[finished_runs.Experiment],
    images: np.ndarray,
    command: str | None,
) -> None:
    """Write the tables, the figures and the page, and print the verdict.

    Args:
        files: where to write.
        experiments: the runs to compare.
        images: the test images, uint8 [images, height, width].
        command: the command that reproduces the report, if known.
    """
    report = [tables.report_row(run) for each in experiments for run in each.runs]
    summary = [tables.summary_row(each) for each in experiments]
    comparisons = tables.comparison_rows(experiments)
    drawn = figures.draw(experiments, summary)
    html = page.render(experiments, summary, comparisons, drawn, images, command)

    write_csv(files.table("report.csv"), tables.REPORT, report)
    write_csv(files.table("summary.csv"), tables.SUMMARY, summary)
    write_csv(files.table("comparisons.csv"), tables.COMPARISONS, comparisons)
    for figure in drawn:
        write_text(files.figure(figure.name), figure.svg)
    write_text(files.page, html)
    print(verdict.terminal(summary, comparisons))
    print(f"\nThe whole report: {files.page} ({verdict.counted(len(report), 'run')})")


def test_images(path: Path, experiments: list[finished_runs.Experiment]) -> np.ndarray:
    """Return the test images of a prepared dataset, uint8 [images, height, width].

    Raises:
        UserError: the file is missing or corrupt, or the runs were evaluated on a different test
            set.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            images, labels = file.get_tensor("test_images"), file.get_tensor("test_labels")
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    run = experiments[0].runs[0]
    if not np.array_equal(labels, run.labels):
        raise UserError(f"{run.path} was evaluated on a different test set than the one in {path}")
    return images


if __name__ == "__main__":
    command_line.run(main)
