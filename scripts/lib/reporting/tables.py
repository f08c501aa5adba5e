"""The report's tables: one row per run, per experiment, and per pair of experiments.

Each metric but the accuracy has columns of its own at the end, as have recall and F1 of each class.
"""

import math
import statistics
from itertools import combinations

import numpy as np

from lib.core import metric as metrics
from lib.core import provenance
from lib.core.metric import ACCURACY, Metric
from lib.core.settings import difference as settings_difference
from lib.reporting import uncertainty
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun, measured
from lib.reporting.uncertainty import FEWEST_SEEDS, LEVEL, Mean, Measured, Pair
from lib.training.measures import majority

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
    "p_value,p_adjusted,detectable_difference,verdict,warning,metric"
).split(",")
ALL_PAIRS = 20  # with more experiments than this, each is compared with the first only
FEWEST_IMAGES = 10  # or groups, of each class that a metric is about: else the spread is not known
MCNEMAR = "exact McNemar"


def report_columns(classes: list[str], folds: int | None = None, best: bool = False) -> list[str]:
    """Return the columns of report.csv for a data set of these classes, and so many folds.

    With `best`, the best epoch of some runs is kept.
    """
    more = [*(["fold"] if folds else []), *(["best_epoch"] if best else [])]
    return [*REPORT, "majority_accuracy", *further_metrics(classes), *more]


def summary_columns(classes: list[str], folds: int | None = None) -> list[str]:
    """Return the columns of summary.csv for a data set of these classes, and so many folds."""
    names, ends = further_metrics(classes), ("mean", "low", "high")
    new = ["metric", "positive", "majority_accuracy"]
    each = [f"{name}_{end}" for name in names for end in ends]
    return [*SUMMARY, *new, *each, *(["folds"] if folds else [])]


def comparison_columns(folds: int | None = None) -> list[str]:
    """Return the columns of comparisons.csv for a data set of so many folds."""
    return [*COMPARISONS, *(["folds"] if folds else [])]


def further_metrics(classes: list[str]) -> list[str]:
    """Return the names of all metrics but the accuracy, whose columns are older."""
    return [name for name in metrics.names(classes) if name != ACCURACY.name]


def report_row(run: FinishedRun) -> dict:
    """Return the row of one run. Its interval describes this one trained network."""
    record, total = run.record, len(run.labels)
    slurm = record["slurm"] or {}
    low, high, _ = interval(ACCURACY, [run], measured(ACCURACY, [run]))
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
        "epochs": len(run.history),
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
        "majority_accuracy": majority(run.test_set.labels[run.images]),
        **{name: run.scores[name] for name in further_metrics(run.test_set.classes)},
        **({"fold": run.fold} if run.fold else {}),
        **({"best_epoch": record["best"]["epoch"]} if record.get("best") else {}),
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


def summary_row(experiment: FinishedExperiment, metric: Metric = ACCURACY) -> dict:
    """Return the row of one experiment.

    The column `interval` says how accuracy_low and accuracy_high were computed: `wilson` describes
    one trained network, `t` describes the recipe. With two runs, there is no interval, unless they
    are of folds. Without any run, there are no numbers.

    Args:
        experiment: the experiment.
        metric: the one by which the experiments are compared.
    """
    runs = experiment.runs
    missing = missing_text(experiment)
    if not runs:
        known = {"experiment": experiment.name, "runs": 0, "warning": "", "missing": missing}
        known["metric"] = metric.name
        return dict.fromkeys(SUMMARY) | known
    accuracies, test_set = [run.accuracy for run in runs], runs[0].test_set
    low, high, method = interval(ACCURACY, runs, measured(ACCURACY, runs))
    return {
        "experiment": experiment.name,
        "model": experiment.settings["model"]["name"],
        "parameters": max(run.record["parameters"] for run in runs),
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
        "metric": metric.name,
        "positive": None if test_set.positive is None else test_set.classes[test_set.positive],
        "majority_accuracy": majority(test_set.labels),
        **metric_cells(experiment),
        **({"folds": test_set.number_of_folds} if test_set.number_of_folds else {}),
    }


def metric_cells(experiment: FinishedExperiment) -> dict[str, float | None]:
    """Return mean and interval of each metric that has columns of its own."""
    runs, cells = experiment.runs, {}
    for name in further_metrics(runs[0].test_set.classes):
        metric = Metric(name)
        found = measured(metric, runs)
        cells[f"{name}_mean"] = float(found.runs.mean()) if found else None
        cells[f"{name}_low"], cells[f"{name}_high"], _ = interval(metric, runs, found)
    return cells


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


def interval(
    metric: Metric, runs: list[FinishedRun], found: Measured | None
) -> tuple[float | None, float | None, str]:
    """Return the ends of the interval of a metric, of a recipe or one network, and its method.

    There is none with two runs without folds, where the metric cannot be computed, or where there
    are too few images; nor where all is right, or all is wrong, unless the metric is a share of
    images.

    Args:
        metric: the metric.
        runs: one, or all of an experiment.
        found: the metric of these runs; None where it cannot be computed.
    """
    of_one = [run for run in runs if run.seed == runs[0].seed]
    shares, nothing = share_of_images(metric, of_one), (None, None, "none")
    wilson = nothing
    if shares is not None:
        wilson = (*uncertainty.wilson(int(shares.sum()), len(shares)), "wilson")
    if len(runs) == 1 and shares is not None:
        return wilson
    too_few_runs = len(of_one) == 1 and len(runs) in range(2, FEWEST_SEEDS)
    if too_few_runs or found is None or too_few_images(metric, of_one):
        return nothing
    mean = found.mean()
    if not mean.standard_error:  # all is right, or all is wrong, so the variance is unknown
        return wilson
    low, high = mean.interval()
    return max(low, 0.0), high if metric.minimized else min(high, 1.0), "t"


def share_of_images(metric: Metric, runs: list[FinishedRun]) -> np.ndarray | None:
    """Return what is right, bool [some images], of which a metric is the share; None if it is none.

    Where images have groups, the share is no such share: those of a group are right together.

    Args:
        metric: the metric.
        runs: one, or those of one seed on all folds.
    """
    test_set, right = runs[0].test_set, [run.prediction == run.labels for run in runs]
    if test_set.groups is not None:
        return None
    labels, right = np.concatenate([run.labels for run in runs]), np.concatenate(right)
    members = np.ones(len(labels), bool)
    if metric.kind == "recall":
        members = labels == test_set.classes.index(metric.of_class)
    elif metric != ACCURACY:
        return None
    return right[members] if members.any() else None


def too_few_images(metric: Metric, runs: list[FinishedRun]) -> bool:
    """Return whether the spread of a metric over the images cannot be told from so few.

    Of the accuracy and its like it can, unless images have groups: then these are what is counted.

    Args:
        metric: the metric.
        runs: one, or those of one seed on all folds.
    """
    test_set, images = runs[0].test_set, np.concatenate([run.images for run in runs])
    labels = test_set.labels[images]
    groups = None if test_set.groups is None else test_set.groups[images]
    if metric.kind in ("accuracy", "log_loss", "top5"):
        return groups is not None and len(np.unique(groups)) < FEWEST_IMAGES
    numbers = np.unique(labels)
    if metric.of_class:
        numbers = [test_set.classes.index(metric.of_class)]
    units = np.arange(len(labels)) if groups is None else groups
    return any(len(np.unique(units[labels == number])) < FEWEST_IMAGES for number in numbers)


def comparison_rows(experiments: list[FinishedExperiment], metric: Metric = ACCURACY) -> list[dict]:
    """Return one row per pair. More than 20 experiments are each compared with the first only."""
    pairs = list(combinations(experiments, 2))
    if len(experiments) > ALL_PAIRS:
        pairs = [(experiments[0], other) for other in experiments[1:]]
    known = {each.name: measured(metric, each.runs) for each in experiments if each.runs}
    found = [difference(metric, *pair, known) for pair in pairs]
    tests = sum(isinstance(estimate, Pair | Mean) for estimate in found)
    rows = [
        comparison_row(*pair, each, tests, metric) for pair, each in zip(pairs, found, strict=True)
    ]
    tested = [row for row in rows if row["p_value"] is not None]
    adjusted = uncertainty.holm([row["p_value"] for row in tested])
    for row, p_adjusted in zip(tested, adjusted, strict=True):
        better = "a better" if metric.better(row["difference"], 0) else "b better"
        row["p_adjusted"] = p_adjusted
        row["verdict"] = better if p_adjusted < LEVEL else "not shown"
    return rows


def difference(
    metric: Metric,
    a: FinishedExperiment,
    b: FinishedExperiment,
    known: dict[str, Measured | None],
) -> Pair | Mean | str:
    """Return by how much a metric of a exceeds that of b, or why they are not compared.

    If runs are missing, those that are there are not compared instead: those that failed may have
    been the worst.
    """
    if a.missing or b.missing:
        return "incomplete"
    seeds, first = {len(a.seeds), len(b.seeds)}, [run for run in a.runs if run.seed == a.seeds[0]]
    if first[0].fold is None:
        if seeds != {1} and min(seeds) < FEWEST_SEEDS:
            return "too few seeds"
        shares = [share_of_images(metric, each.runs[:1]) for each in (a, b)]
        if seeds == {1} and shares[0] is not None:
            only = [int((one & ~other).sum()) for one, other in (shares, shares[::-1])]
            return Pair(*only, len(shares[0]))
    if None in (each := [known[a.name], known[b.name]]):
        return "undefined"
    if too_few_images(metric, first):
        return "too few images"
    return uncertainty.difference(*each, same_seeds=a.seeds == b.seeds)


def only_one_right(a: FinishedExperiment, b: FinishedExperiment) -> tuple[int, int]:
    """Count the images that every run of one and no run of the other classifies correctly."""
    return len(only_right(a, b)), len(only_right(b, a))


def only_right(a: FinishedExperiment, b: FinishedExperiment) -> np.ndarray:
    """Return the images that every run of a and no run of b classifies correctly."""
    return np.flatnonzero(a.always_right & ~b.ever_right)


def comparison_row(
    a: FinishedExperiment,
    b: FinishedExperiment,
    estimate: Pair | Mean | str,
    tests: int,
    metric: Metric,
) -> dict:
    """Return the row of a pair, without the adjusted p value and the verdict.

    Args:
        a: the first experiment.
        b: the second experiment.
        estimate: the result of `difference`.
        tests: the number of pairs that are tested. The detectable difference is computed for the
            strictest level of Holm's method.
        metric: by which they are compared.
    """
    comparable = bool(a.runs and b.runs)
    only_a, only_b = only_one_right(a, b) if comparable else (None, None)
    row = dict.fromkeys(COMPARISONS) | {
        "a": a.name,
        "b": b.name,
        "runs_a": len(a.runs),
        "runs_b": len(b.runs),
        "difference": plain_difference(metric, a, b) if comparable else None,
        "only_a_right": only_a,
        "only_b_right": only_b,
        "method": "none",
        "verdict": estimate,
        "warning": "; ".join(warnings([a, b])),
        "metric": metric.name,
        **({"folds": a.runs[0].test_set.number_of_folds} if comparable and a.runs[0].fold else {}),
    }
    if isinstance(estimate, str):
        return row
    low, high = estimate.interval()
    largest = math.inf if metric.minimized else 1.0
    return row | {
        "difference": estimate.value,
        "difference_low": max(low, -largest),
        "difference_high": min(high, largest),
        "method": MCNEMAR if isinstance(estimate, Pair) else method(a, b),
        "p_value": estimate.p_value(),
        "detectable_difference": estimate.detectable(LEVEL / tests, largest),
    }


def method(a: FinishedExperiment, b: FinishedExperiment) -> str:
    """Return what a t test of two experiments is over."""
    seeds = "seeds and " if min(len(a.seeds), len(b.seeds)) >= FEWEST_SEEDS else ""
    return f"corrected t, {seeds}folds" if a.runs[0].fold else f"t, {seeds}images"


def plain_difference(metric: Metric, a: FinishedExperiment, b: FinishedExperiment) -> float | None:
    """Return the difference of a metric's means; None where it cannot be computed."""
    values = [[run.scores[metric.name] for run in each.runs] for each in (a, b)]
    known = None not in (*values[0], *values[1])
    return float(np.mean(values[0]) - np.mean(values[1])) if known else None


def warnings(experiments: list[FinishedExperiment]) -> list[str]:
    """Return the reasons why a comparison of these runs may be unfair or not reproducible."""
    runs = [run for experiment in experiments for run in experiment.runs]
    found = []
    for experiment in experiments:
        by_fold: dict[int | None, list[dict]] = {}  # a search may have chosen others for each
        for run in experiment.runs:
            settings = run.record["settings"] | {"seed": None, "fold": None}
            by_fold.setdefault(run.fold if experiment.searched else None, []).append(settings)
        if any(settings_difference(each, some[0]) for some in by_fold.values() for each in some):
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
