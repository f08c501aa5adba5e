"""Compare the finished runs in tables, figures, and a page that says which network is better.

    python scripts/report.py --data results/data/MNIST.safetensors

reports every run below RESULTS/runs, in alphabetical order. All of them must be complete.

--runs selects runs. `--runs mlp=1,2 cnn=1` selects seeds 1 and 2 of the experiment mlp and seed 1
of cnn; where the data has two folds, that is `cnn=1-fold1,1-fold2`: a seed needs all of them. The
rows of the tables follow this order. With more than 20 experiments, each one is compared with the
first only.

With --incomplete, runs that are not complete are listed as missing, each with the reason, and the
others are reported. A pair of experiments in which a run is missing gets no verdict.

OUTPUT/report.csv        one row per run
OUTPUT/summary.csv       one row per experiment
OUTPUT/comparisons.csv   one row per pair of experiments
OUTPUT/report.html       the page, a single file
OUTPUT/figures/*.svg     the figures of the page
"""

from pathlib import Path

import lib.core.command_line as command_line  # first, for Ctrl-C

from lib.core import metric as metrics
from lib.core.files import write_csv, write_text
from lib.core.layout import Layout
from lib.core.metric import Metric
from lib.reporting import figures, finished_runs, page, search_table, tables, verdict


def main() -> None:
    """Run the command line."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    command_line.add_results(parser)
    add("--runs", nargs="+", metavar="EXPERIMENT=SEED,SEED", help="the runs (default: all)")
    add("--data", type=Path, required=True, metavar="FILE", help="the prepared dataset of the runs")
    add("--output", type=Path, metavar="DIR", help="the folder to write to (default: RESULTS)")
    metrics.add_arguments(parser)
    add(
        "--command",
        metavar="TEXT",
        help="the command that reproduces the report, shown on the page (default: none)",
    )
    add(
        "--search",
        type=Path,
        metavar="FILE",
        help="sweep.csv, for a section on how experiments were chosen (default: none)",
    )
    add(
        "--incomplete",
        action="store_true",
        help="report the complete runs, and list the others (default: they are an error)",
    )
    add(
        "--out-of-date",
        nargs="+",
        default=[],
        metavar="EXPERIMENT=SEED,SEED",
        help="runs whose results are no longer valid, to be listed as missing (default: none)",
    )
    args = parser.parse_args()

    names = (
        finished_runs.parse_runs(args.runs)
        if args.runs
        else finished_runs.discover_runs(args.results)
    )
    test_set = finished_runs.read_test_set(args.data, args.positive)
    metric = metrics.parse(args.metric, test_set.classes)
    out_of_date = finished_runs.parse_runs(args.out_of_date)
    searches = search_table.read(args.search) if args.search else []
    incomplete, shown_as = args.incomplete or bool(out_of_date), search_table.shown_as(searches)
    experiments = finished_runs.read(
        args.results, names, test_set, incomplete, out_of_date, shown_as
    )
    files = Layout(args.output or args.results)
    write_report(files, experiments, test_set, args.command, searches, metric)


def write_report(
    files: Layout,
    experiments: list[finished_runs.FinishedExperiment],
    test_set: finished_runs.TestSet,
    command: str | None,
    searches: list[search_table.SearchTable],
    metric: Metric,
) -> None:
    """Write the tables, the figures and the page, and print the verdict.

    Args:
        files: where to write.
        experiments: the runs to compare.
        test_set: what they were evaluated on.
        command: the command that reproduces the report, if known.
        searches: those that have chosen some of the experiments.
        metric: by which they are compared.
    """
    report = tables.report_rows(experiments)
    classes, folds = test_set.classes, test_set.number_of_folds
    columns = tables.summary_columns(classes, folds)
    summary = [dict.fromkeys(columns) | tables.summary_row(each, metric) for each in experiments]
    comparisons = tables.comparison_rows(experiments, metric)
    # On the page, the best come first.
    ranked = verdict.best_first(summary)
    ranked += [row for row in summary if row not in ranked]
    by_name = {each.name: each for each in experiments}
    shown = [by_name[row["experiment"]] for row in ranked]
    drawn = figures.draw(
        [each for each in shown if each.runs], [row for row in ranked if row["runs"]], metric
    )
    drawn += [search_table.draw(searches)] if searches else []
    html = page.render(shown, ranked, comparisons, drawn, test_set, command, searches)

    report_columns = tables.report_columns(
        classes, folds, any("best_epoch" in row for row in report)
    )
    write_csv(files.table("report.csv"), report_columns, report)
    write_csv(files.table("summary.csv"), columns, summary)
    write_csv(files.table("comparisons.csv"), tables.comparison_columns(folds), comparisons)
    for figure in drawn:
        write_text(files.figure(figure.name), figure.svg)
    write_text(files.page, html)
    print(verdict.terminal(summary, comparisons))
    print(f"\nThe whole report: {files.page} ({verdict.counted(len(report), 'run')})")


if __name__ == "__main__":
    command_line.run(main)
