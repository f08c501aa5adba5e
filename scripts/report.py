"""Gather the runs' accuracy tables into one table, a row a run.

    python scripts/report.py --results results --output results/report.csv

reports every run below RESULTS/runs; --runs names some, in the order of the rows:
`--runs mlp=1,2 cnn=1` stands for seeds 1 and 2 of the experiment mlp, then seed 1 of cnn.
"""

import csv
import re
from pathlib import Path

from scipy.stats import binomtest

import cli
from cli import Failure
from files import atomic_path, read_json

COLUMNS = (
    "experiment,model,seed,test_accuracy,accuracy_low,accuracy_high,test_loss,correct,test_size,"
    "parameters,epochs,device,train_seconds,images_per_second,peak_memory_mb,resumes,slurm_job_id,"
    "partition,host,torch_version,git_commit,run"
).split(",")


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
    add("--output", type=Path, required=True, metavar="CSV", help="the table to write")
    args = parser.parse_args()

    runs = named_runs(args.runs) if args.runs else all_runs(args.results)
    rows = [report_row(args.results, experiment, seed) for experiment, seed in runs]
    with atomic_path(args.output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} runs: {args.output}")


def named_runs(words: list[str]) -> list[tuple[str, int]]:
    """Read `["mlp=1,2"]` as `[("mlp", 1), ("mlp", 2)]`.

    Raises:
        Failure: a word is not of that form.
    """
    runs = []
    for word in words:
        match = re.fullmatch(r"([^=/]+)=(\d+(?:,\d+)*)", word)
        if not match:
            raise Failure(f"--runs: {word!r} is not EXPERIMENT=SEED,SEED")
        runs += [(match[1], int(seed)) for seed in match[2].split(",")]
    return runs


def all_runs(results: Path) -> list[tuple[str, int]]:
    """Return experiment and seed of each folder below `results/runs`, sorted.

    Raises:
        Failure: there is none.
    """
    folders = results.glob("runs/*/seed*/")
    runs = [
        (folder.parent.name, int(folder.name.removeprefix("seed")))
        for folder in folders
        if folder.name.removeprefix("seed").isdecimal()
    ]
    if not runs:
        raise Failure(f"there is no run below {results / 'runs'}")
    return sorted(runs)


def report_row(results: Path, experiment: str, seed: int) -> dict:
    """Return the report's row of one run.

    Raises:
        Failure: a file of the run is missing or torn; the message names it.
    """
    run = Path("runs") / experiment / f"seed{seed}"
    record = read_json(results / run / "run.json")
    evaluation = read_json(results / run / "evaluation.json")
    correct, total = overall_counts(results / run / "accuracy.csv")
    slurm = record["slurm"] or {}
    # Wilson's interval: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    interval = binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    return {
        "experiment": experiment,
        "model": record["settings"]["model"]["name"],
        "seed": seed,
        "test_accuracy": correct / total,
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
        "test_loss": evaluation["test_loss"],
        "correct": correct,
        "test_size": total,
        "parameters": record["parameters"],
        "epochs": record["settings"]["epochs"],
        "device": record["device"],
        "train_seconds": record["train_seconds"],
        "images_per_second": record["images_per_second"],
        "peak_memory_mb": record["peak_memory_mb"],
        "resumes": record["resumes"],
        "slurm_job_id": slurm.get("job_id"),
        "partition": slurm.get("partition"),
        "host": record["host"],
        "torch_version": record["versions"]["torch"],
        "git_commit": record["git_commit"],
        "run": run.as_posix(),
    }


def overall_counts(accuracy_csv: Path) -> tuple[int, int]:
    """Return how many test images were right and how many there are: the row `all`.

    Raises:
        Failure: the table is missing or torn.
    """
    try:
        with accuracy_csv.open(newline="", encoding="utf-8") as file:
            rows = {row["class"]: row for row in csv.DictReader(file)}
        return int(rows["all"]["correct"]), int(rows["all"]["total"])
    except OSError as error:
        raise Failure(f"cannot read {accuracy_csv}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(f"{accuracy_csv} is not a whole accuracy table: no row 'all'") from error


if __name__ == "__main__":
    cli.run(main)
