"""Compare the finished runs: tables, figures and a page that says what they show.

    python scripts/report.py --data results/data/MNIST.safetensors

reports every run below RESULTS/runs, all of which must be finished, in alphabetical order. --runs
names some, the experiments in the order of the rows, of which the first is the one to compare with
where there are more than 20:
`--runs mlp=1,2 cnn=1` stands for seeds 1 and 2 of the experiment mlp, then seed 1 of cnn.

OUTPUT/report.csv        a row a run
OUTPUT/summary.csv       a row an experiment
OUTPUT/comparisons.csv   a row a pair of experiments
OUTPUT/report.html       the page, one file
OUTPUT/figures/*.svg     its pictures
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

import cli
import figures
import page
import runs
import tables
import verdict
from cli import Failure
from files import write_csv, write_text


def main() -> None:
    """Run the command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="the folder that holds runs/ (default: %(default)s)",
    )
    add("--runs", nargs="+", metavar="EXPERIMENT=SEED,SEED", help="the runs (default: all)")
    add("--data", type=Path, required=True, metavar="FILE", help="the file that they trained on")
    add("--output", type=Path, metavar="DIR", help="where to write (default: RESULTS)")
    add("--command", metavar="TEXT", help="for the page: how to repeat it (default: not said)")
    args = parser.parse_args()
    output = args.output or args.results

    names = runs.named(args.runs) if args.runs else runs.found(args.results)
    experiments = runs.read(args.results, names)
    images = test_images(args.data, experiments)
    report = [tables.report_row(run) for each in experiments for run in each.runs]
    summary = [tables.summary_row(each) for each in experiments]
    comparisons = tables.comparison_rows(experiments)
    drawn = figures.draw(experiments, summary)
    html = page.render(experiments, summary, comparisons, drawn, images, args.command)

    write_csv(output / "report.csv", tables.REPORT, report)
    write_csv(output / "summary.csv", tables.SUMMARY, summary)
    write_csv(output / "comparisons.csv", tables.COMPARISONS, comparisons)
    for figure in drawn:
        write_text(output / "figures" / f"{figure.name}.svg", figure.svg)
    write_text(output / "report.html", html)
    print(verdict.terminal(summary, comparisons))
    print(f"\n{len(report)} runs: {output / 'report.html'}")


def test_images(path: Path, experiments: list[runs.Experiment]) -> np.ndarray:
    """Return the test images of a prepared data set, uint8 [images, height, width].

    Raises:
        Failure: it is missing or torn, or the runs were measured on another test set.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            images, labels = file.get_tensor("test_images"), file.get_tensor("test_labels")
    except (OSError, SafetensorError) as error:
        raise Failure(f"cannot read {path}: {error}") from error
    run = experiments[0].runs[0]
    if not np.array_equal(labels, run.labels):
        raise Failure(f"{run.path} was measured on another test set than that of {path}")
    return images


if __name__ == "__main__":
    cli.run(main)
