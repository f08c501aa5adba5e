"""The report's tables: one row per run, per experiment, and per pair of experiments."""

import statistics
from itertools import combinations

import numpy as np

from lib.core import provenance
from lib.core.settings import difference as settings_difference
from lib.reporting import uncertainty
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun
from lib.reporting.uncertainty import LEVEL, Pair

REPORT = (
    "experiment,model,seed,test_accuracy,accuracy_low,accuracy_high,test_loss,correct,test_size,"
    "parameters,epochs,device,train_seconds,images_per_second,peak_memory_mb,resumes,slurm_job_id,"
    "partition,host,torch_version,git_commit,run,warning"
).split(",")
SUMMARY = (
    "experiment,model,parameters,device,runs,accuracy_mean,accuracy_sd,accuracy_min,accuracy_max,"
    "accuracy_low,accuracy_high,interval,test_loss_mean,train_seconds_mean,images_per_second_mean,"
    "peak_memory_mb_max,warning,missing"
).split(",")
COMPARISONS = (
    "a,b,runs_a,runs_b,difference,difference_low,difference_high,only_a_right,only_b_right,method,"
    "p_value,p_adjusted,detectable_difference,verdict,warning"
).split(",")
RECIPE_RUNS = 3  # this many runs or more describe their recipe
ALL_PAIRS = 20  # with more experiments than this, each is compared with the first only
MCNEMAR, TWO_SOURCES = "exact McNemar", "t, seeds and images"


def report_row(run: FinishedRun) -> dict:
    """Return the row of one run. Its interval describes this one trained network."""
    record, total = run.record, len(run.labels)
    slurm = record["slurm"] or {}
    low, high = uncertainty.wilson(run.correct, total)
    return {
        "experiment": run.experiment,
        "model": record["settings"]["model"]["name"],
        "seed": run.seed,
        "test_accuracy": run.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "test_loss": run.evaluation["test_loss"],
        "correct": run.correct,
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
        "run": run.path,
        "warning": unproven(run),
    }


def unproven(run: FinishedRun) -> str:
    """Say that a run was adopted without proof, and why; nothing where it was not."""
    reason = run.adoption and run.adoption.reason
    return f"not proven for the current code: {reason}" if reason else ""


def report_rows(experiments: list[FinishedExperiment]) -> list[dict]:
    """Return one row per run. It warns of what makes them unfair to compare with each other."""
    runs = [run for each in experiments for run in each.runs]
    mixed, rows = different_versions(runs), [report_row(run) for run in runs]
    return [row | {"warning": "; ".join([*mixed, *filter(None, [row["warning"]])])} for row in rows]


def summary_row(experiment: FinishedExperiment) -> dict:
    """Return the row of one experiment.

    The column `interval` says how accuracy_low and accuracy_high were computed: `wilson` describes
    one trained network, `t` describes the recipe. With two runs, there is no interval. Without any
    run, there are no numbers.
    """
    runs = experiment.runs
    missing = missing_text(experiment)
    if not runs:
        known = {"experiment": experiment.name, "runs": 0, "warning": "", "missing": missing}
        return dict.fromkeys(SUMMARY) | known
    accuracies = [run.accuracy for run in runs]
    low, high, method = accuracy_interval(experiment)
    return {
        "experiment": experiment.name,
        "model": runs[0].record["settings"]["model"]["name"],
        "parameters": runs[0].record["parameters"],
        "device": " and ".join(sorted({run.record["device"] for run in runs})),
        "runs": len(runs),
        "accuracy_mean": float(np.mean(accuracies)),
        "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(runs) > 1 else None,
        "accuracy_min": min(accuracies),
        "accuracy_max": max(accuracies),
        "accuracy_low": low,
        "accuracy_high": high,
        "interval": method,
        # Unlike numpy's mean, this one does not overflow if a loss has exploded.
        "test_loss_mean": statistics.mean(float(run.evaluation["test_loss"]) for run in runs),
        "train_seconds_mean": _mean(runs, "train_seconds"),
        "images_per_second_mean": _mean(runs, "images_per_second"),
        "peak_memory_mb_max": max(run.record["peak_memory_mb"] for run in runs),
        "warning": "; ".join(warnings([experiment])),
        "missing": missing,
    }


def missing_text(experiment: FinishedExperiment) -> str:
    """Return why runs of an experiment are missing, such as `seed 2: not trained`.

    There is a semicolon between two seeds and nowhere else: `verdict.missing_runs` relies on it.
    """
    return "; ".join(
        f"seed {seed}: {' '.join(reason.replace(';', ',').split())}"
        for seed, reason in experiment.missing.items()
    )


def _mean(runs: list[FinishedRun], key: str) -> float:
    return float(np.mean([run.record[key] for run in runs]))


def accuracy_interval(experiment: FinishedExperiment) -> tuple[float | None, float | None, str]:
    """Return the ends of an experiment's interval, and how it was computed."""
    runs = experiment.runs
    if 1 < len(runs) < RECIPE_RUNS:
        return None, None, "none"
    mean = uncertainty.recipe_accuracy(experiment.right) if len(runs) > 1 else None
    if mean is None or not mean.standard_error:
        # Either there is one network, or all predictions are correct, so the variance is unknown.
        return *uncertainty.wilson(runs[0].correct, len(runs[0].labels)), "wilson"
    low, high = mean.interval()
    return max(low, 0.0), min(high, 1.0), "t"


def comparison_rows(experiments: list[FinishedExperiment]) -> list[dict]:
    """Return one row per pair. More than 20 experiments are each compared with the first only."""
    pairs = list(combinations(experiments, 2))
    if len(experiments) > ALL_PAIRS:
        pairs = [(experiments[0], other) for other in experiments[1:]]
    found = [difference(a, b) for a, b in pairs]
    tests = sum(estimate is not None for estimate in found)
    rows = [comparison_row(*pair, each, tests) for pair, each in zip(pairs, found, strict=True)]
    tested = [row for row in rows if row["p_value"] is not None]
    adjusted = uncertainty.holm([row["p_value"] for row in tested])
    for row, p_adjusted in zip(tested, adjusted, strict=True):
        better = "a better" if row["difference"] > 0 else "b better"
        row["p_adjusted"] = p_adjusted
        row["verdict"] = better if p_adjusted < LEVEL else "not shown"
    return rows


def difference(a: FinishedExperiment, b: FinishedExperiment) -> Pair | uncertainty.Mean | None:
    """Return the difference in accuracy, or None if runs are missing or there are too few seeds.

    The runs that are there are not compared instead: those that failed may have been the worst.
    """
    if a.missing or b.missing:
        return None
    runs = {len(a.runs), len(b.runs)}
    if runs == {1}:
        return Pair(*only_one_right(a, b), a.right.shape[1])
    if min(runs) >= RECIPE_RUNS:
        same_seeds = a.seeds == b.seeds
        return uncertainty.recipe_difference(a.right, b.right, same_seeds)
    return None


def only_one_right(a: FinishedExperiment, b: FinishedExperiment) -> tuple[int, int]:
    """Count the images that every run of one and no run of the other classifies correctly."""
    return len(only_right(a, b)), len(only_right(b, a))


def only_right(a: FinishedExperiment, b: FinishedExperiment) -> np.ndarray:
    """Return the images that every run of a and no run of b classifies correctly."""
    return np.flatnonzero(a.always_right & ~b.ever_right)


def comparison_row(a: FinishedExperiment, b: FinishedExperiment, estimate, tests: int) -> dict:
    """Return the row of a pair, without the adjusted p value and the verdict.

    Args:
        a: the first experiment.
        b: the second experiment.
        estimate: the result of `difference`.
        tests: the number of pairs that are tested. The detectable difference is computed for the
            strictest level of Holm's method.
    """
    comparable = bool(a.runs and b.runs)
    only_a, only_b = only_one_right(a, b) if comparable else (None, None)
    row = {
        "a": a.name,
        "b": b.name,
        "runs_a": len(a.runs),
        "runs_b": len(b.runs),
        "difference": float(a.right.mean() - b.right.mean()) if comparable else None,
        "only_a_right": only_a,
        "only_b_right": only_b,
        "method": "none",
        "p_value": None,
        "p_adjusted": None,
        "difference_low": None,
        "difference_high": None,
        "detectable_difference": None,
        "verdict": "incomplete" if a.missing or b.missing else "too few seeds",
        "warning": "; ".join(warnings([a, b])),
    }
    if estimate is None:
        return row
    low, high = estimate.interval()
    return row | {
        "difference": estimate.value,
        "difference_low": max(low, -1.0),
        "difference_high": min(high, 1.0),
        "method": MCNEMAR if isinstance(estimate, Pair) else TWO_SOURCES,
        "p_value": estimate.p_value(),
        "detectable_difference": estimate.detectable(LEVEL / tests),
    }


def warnings(experiments: list[FinishedExperiment]) -> list[str]:
    """Return the reasons why a comparison of these runs may be unfair or not reproducible."""
    runs = [run for experiment in experiments for run in experiment.runs]
    found = []
    for experiment in experiments:
        settings = [run.record["settings"] | {"seed": None} for run in experiment.runs]
        if any(settings_difference(each, settings[0]) for each in settings):
            found.append(f"the runs of {experiment.name} have different settings")
    devices = sorted({run.device for run in runs})
    if len(devices) > 1:
        found.append(f"trained on different devices ({', '.join(devices)})")
    found += different_versions(runs)
    found += dict.fromkeys(filter(None, map(unproven, runs)))
    changed = changed_code(runs)
    if changed:
        found.append(f"run with different code ({', '.join(changed)})")
    if any(each["git_dirty"] for run in runs for each in (run.record, run.evaluation)):
        found.append(
            "run with uncommitted changes in scripts/, workflow/, config/, or the Snakefile"
        )
    return found


def different_versions(runs: list[FinishedRun]) -> list[str]:
    """Return for each package that computes, if runs used more than one version, which ones."""
    used: dict[str, set[str]] = {}
    for run in runs:
        for each in (run.record, run.evaluation):
            for name, version in provenance.computing(each["versions"]).items():
                used.setdefault(name, set()).add(str(version))
    return [
        f"made with different versions of {name} ({', '.join(sorted(found))})"
        for name, found in used.items()
        if len(found) > 1
    ]


def changed_code(runs: list[FinishedRun]) -> list[str]:
    """Return the project's files that differ between the runs that used them."""
    digests: dict[str, set[str]] = {}
    for run in runs:
        used = (run.record["code"], run.evaluation["code"])
        for code in [run.adoption.code] if run.adoption else used:
            for file, digest in code.items():
                digests.setdefault(file, set()).add(digest)
    return sorted(file for file, found in digests.items() if len(found) > 1)
