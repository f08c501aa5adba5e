"""What the terminal shows when a run of the workflow ends, well or not."""

import csv
from pathlib import Path

import resources
from cli import Failure
from verdict import terminal


def verdict_of(results: Path) -> str:
    """Return the verdict and the summary table; nothing where there is no report of now."""
    if not all(
        (results / name).is_file() for name in ("report.html", "summary.csv", "comparisons.csv")
    ):
        return ""
    evaluated = [path.stat().st_mtime for path in results.glob("runs/*/*/evaluation.json")]
    if (results / "report.html").stat().st_mtime < max(evaluated, default=0):
        return ""  # only a part of the workflow was asked for
    summary, comparisons = (_rows(results / f"{name}.csv") for name in ("summary", "comparisons"))
    return f"\n{terminal(summary, comparisons)}\n\nThe whole report: {results}/report.html\n"


def _rows(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
