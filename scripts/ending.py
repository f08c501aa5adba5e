"""What the terminal shows when a run of the workflow ends, well or not."""

import csv
from pathlib import Path

import resources
from cli import Failure


def accuracies(report: Path) -> str:
    """Return a line for each run in the report; nothing where there is no report."""
    if not report.is_file():
        return ""
    with report.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [
        f"  {row['experiment']}, seed {row['seed']}: {_percent(row['test_accuracy'])} % of "
        f"{int(row['test_size']):,} test images right (95 % interval "
        f"{_percent(row['accuracy_low'])} to {_percent(row['accuracy_high'])})"
        for row in rows
    ]
    return "\n".join([f"Test accuracy ({report}):", *lines])


def _percent(fraction: str) -> str:
    return f"{100 * float(fraction):.2f}"


def unfinished(results: Path, runs: list[tuple[str, int]], stages: dict[str, list[str]]) -> str:
    """Return a line for each run that lacks files, with the log to read.

    Args:
        results: the config's `results_dir`.
        runs: experiment and seed of each run.
        stages: the files that each stage writes, by the stage's name, in order.
    """
    lines = []
    for experiment, seed in runs:
        folder = results / "runs" / experiment / f"seed{seed}"
        missing = [
            stage
            for stage, files in stages.items()
            if not all((folder / file).is_file() for file in files)
        ]
        if missing:
            log = results / "logs" / f"{missing[0]}-{experiment}-seed{seed}.log"
            hint = f"see {log}" if log.is_file() else "it was not started"
            lines.append(f"  {experiment}, seed {seed}: {missing[0]} is not done; {hint}")
    if not lines:
        return ""
    again = "What is done is kept: the same command goes on from here."
    return "\n".join(["Not finished:", *lines, again])


def write_resources(study) -> None:
    """Write `resources.csv`; a study of which nothing has run has none."""
    try:
        resources.write(study)
    except Failure as failure:
        print(f"no resources.csv: {failure}")
