"""The report as one HTML file: the verdict, the tables, the figures, and the test images."""

import base64
import io
from collections import Counter
from datetime import datetime
from itertools import combinations
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lib.core import durations
from lib.core.metric import ACCURACY, RANKING, WORDS, Metric
from lib.core.settings import Settings, loss_of
from lib.reporting import tables, verdict
from lib.reporting.figures import DARK, LIGHT, Figure, color
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun, TestSet
from lib.reporting.search_table import SearchTable

TEMPLATES = Path(__file__).parents[3] / "workflow" / "report"
LISTED = 20  # missing runs that are listed
IMAGES = 12  # shown per group of test images
GALLERIES = 6  # pairs of experiments whose images are shown
NAMED = 5  # classes without test images that are named
ANSWERS = 3  # experiments whose predictions are shown below an image that all misclassify


def render(
    experiments: list[FinishedExperiment],
    summary: list[dict],
    comparisons: list[dict],
    figures: list[Figure],
    test_set: TestSet,
    command: str | None,
    searches: list[SearchTable] = (),
) -> str:
    """Return the page.

    Args:
        experiments: the experiments to compare. Those without runs are only in the tables.
        summary: the rows of summary.csv.
        comparisons: the rows of comparisons.csv.
        figures: the figures.
        test_set: what they were evaluated on.
        command: the command that reproduces the report, if known.
        searches: those that have chosen some of the experiments.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "difference": difference, "number": number,
        "p_value": p_text, "duration": durations.in_words, "data_uri": svg_uri, "loss": loss,
        "runs": verdict.runs_text, "value": metric_value,
        "sentence": verdict.capitalized,
    }  # fmt: skip
    shown = [each for each in experiments if each.runs]
    names = [each.name for each in shown] + [each.name for each in experiments if not each.runs]
    pairs = list(combinations(shown, 2))
    return environment.get_template("page.html.j2").render(
        light=LIGHT,
        dark=DARK,
        title=" and ".join(names) if len(names) < 4 else f"{len(names)} experiments",
        incomplete=verdict.incomplete(summary),
        missing=verdict.missing_runs(summary, LISTED),
        sentences=verdict.sentences(summary, comparisons),
        summary=summary,
        comparisons=comparisons,
        figures={figure.name: figure for figure in figures},
        colors={name: color(place) for place, name in enumerate(names)},
        shown=len(shown),
        differing={name: {} for name in names} | differing_settings(shown),
        losses=sorted({loss_of(each.settings["loss"])["name"] for each in shown}),
        kept=kept_epochs(shown),
        splits=sorted({run.history["split"].iloc[0] for each in shown for run in each.runs}),
        galleries=[gallery(a, b, test_set) for a, b in pairs[:GALLERIES]],
        pairs=len(pairs),
        all_compared=len(experiments) <= tables.ALL_PAIRS,
        all_wrong=all_wrong(shown, test_set),
        calibration={each.name: each.calibration[1] for each in shown},
        class_calibration={each.name: each.class_calibration[1] for each in shown},
        metric=verdict.metric_of(summary),
        metrics=[name for name in WORDS if name != ACCURACY.name],
        metric_notes=metric_notes(test_set),
        positive=None if test_set.positive is None else test_set.classes[test_set.positive],
        costs=[cost_row(each) for each in shown],
        origin=data_rows(shown, test_set) + origin(shown),
        largest_class=test_set.audit and test_set.audit["largest_class"],
        settings={each.name: flat(each.settings) for each in shown},
        test_size=len(test_set.labels),
        folds=test_set.number_of_folds,
        command=command,
        searches=searches,
    )


def metric_value(value: float | None, name: str) -> str:
    """Return the value of a metric, by its name, or a dash if there is none."""
    return "–" if value is None or value != value else Metric(name).text(value)


def kept_epochs(experiments: list[FinishedExperiment]) -> list[str]:
    """Return, for each experiment whose best epochs are kept, which these are, in words."""
    found = []
    for each in experiments:
        best = [run.record["best"] for run in each.runs if run.record.get("best")]
        if best:
            of = sorted({len(run.history) for run in each.runs})
            epochs = f"{of[0]} to {of[-1]}" if len(of) > 1 else f"{of[0]}"
            numbers = ", ".join(str(one["epoch"]) for one in best)
            metric = Metric(best[0]["metric"])
            found.append(f"{each.name}: epoch {numbers} of {epochs} (by {metric.words})")
    return found


def metric_notes(test_set: TestSet) -> list[str]:
    """Return what the metrics are of, where that is not plain."""
    classes, notes = test_set.classes, []
    ranking = " and ".join(WORDS[name] for name in RANKING)
    if test_set.positive is None:
        notes.append(f"The {ranking} are means over the classes, each against the rest.")
    else:
        notes.append(f"The {ranking} are those of {classes[test_set.positive]}.")
    folds = range(1, test_set.number_of_folds + 1) if test_set.number_of_folds else [None]
    labels = [test_set.labels[test_set.images_of(fold)] for fold in folds]
    numbered = enumerate(classes)
    absent = [name for number, name in numbered if any(number not in each for each in labels)]
    if absent:
        more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        where = " in some of the folds" if len(labels) > 1 else ""
        few = f"{', '.join(absent[:NAMED])}{more}{where}"
        notes.append(f"There are no test images of {few}: means over classes are without them.")
    return notes


def svg_uri(svg: str) -> str:
    """Return a figure as a data URI, so that the page needs no other file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def png_uri(image: np.ndarray) -> str:
    """Return an image, uint8 [channels, height, width] of 1 or 3 channels, as a data URI."""
    content = io.BytesIO()
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return `98.70`, or a dash if there is no value."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def difference(value: float | None, in_percent: bool, sign: str = "+") -> str:
    """Return a difference with its sign: in percentage points, or as it is."""
    if value is None:
        return "–"
    text = f"{100 * value:{sign}.2f}" if in_percent else f"{value:{sign}.4f}"
    return text.replace("-", "\N{MINUS SIGN}")


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands separators."""
    return "–" if value is None else f"{value:,.{digits}f}"


def loss(value: float | None) -> str:
    """Return a loss, or a dash if there is no value."""
    return "–" if value is None else verdict.loss_text(value)


def p_text(p: float | None) -> str:
    """Return a p value with two significant digits."""
    return "–" if p is None else verdict.p_value(p).removeprefix("= ")


def flat(settings: dict, prefix: str = "") -> dict[str, str]:
    """Return nested settings as one dictionary with keys such as `optimizer.lr`."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = "none" if value is None else str(value)
    return found


def differing_settings(experiments: list[FinishedExperiment]) -> dict[str, dict[str, str]]:
    """Return the settings of each experiment that are not the same for all experiments.

    The model's name is left out because it has its own column, and the metric, which is that of the
    study.
    """
    full = {each.name: Settings().as_dict() | each.settings for each in experiments}
    if any(isinstance(settings["loss"], dict) for settings in full.values()):
        full = {
            name: settings | {"loss": loss_of(settings["loss"])} for name, settings in full.items()
        }
    each = {name: flat(settings) for name, settings in full.items()}
    keys = dict.fromkeys(key for settings in each.values() for key in settings)
    for name in ("model.name", "metric", "positive"):
        keys.pop(name)
    differing = [key for key in keys if len({settings.get(key) for settings in each.values()}) > 1]
    return {
        name: {key: settings[key] for key in differing if key in settings}
        for name, settings in each.items()
    }


def answer(experiment: FinishedExperiment, index: int) -> tuple[str, float]:
    """Return the class that most seeds predict for an image, and their mean confidence in it."""
    predictions = experiment.predictions[:, index]
    ((choice, _),) = Counter(predictions.tolist()).most_common(1)
    sure = experiment.confidences[predictions == choice, index]
    return experiment.runs[0].record["classes"][choice], float(np.mean(sure))


def tile(experiments: list[FinishedExperiment], index: int, test_set: TestSet) -> dict:
    """Return an image with its label and the experiments' predictions."""
    return {
        "index": test_set.place(index),
        "file": test_set.files[index] if test_set.files else None,
        "uri": png_uri(test_set.image(index)),
        "label": test_set.classes[int(test_set.labels[index])],
        "answers": [(each.name, *answer(each, index)) for each in experiments],
    }


def gallery(a: FinishedExperiment, b: FinishedExperiment, test_set: TestSet) -> dict:
    """Return the images that only one of two experiments classifies correctly, for both.

    The images for which the wrong experiment is most confident come first.
    """
    sides = []
    for right, wrong in ((a, b), (b, a)):
        found = tables.only_right(right, wrong)
        order = np.argsort([-answer(wrong, index)[1] for index in found], kind="stable")
        shown = [tile([right, wrong], index, test_set) for index in found[order][:IMAGES]]
        sides.append(
            {"right": right.name, "wrong": wrong.name, "count": len(found), "tiles": shown}
        )
    return {"a": a.name, "b": b.name, "sides": sides}


def all_wrong(experiments: list[FinishedExperiment], test_set: TestSet) -> dict:
    """Return the images that every run of every experiment misclassifies."""
    found = np.flatnonzero(~np.any([each.ever_right for each in experiments], axis=0))
    shown = [tile(experiments[:ANSWERS], index, test_set) for index in found[:IMAGES]]
    return {"count": len(found), "tiles": shown}


def queue_seconds(run: FinishedRun) -> float | None:
    """Return how long a run's Slurm job waited in the queue, or None if that is unknown."""
    try:
        slurm = run.record["slurm"]
        submit, start = (datetime.fromisoformat(slurm[f"{k}_time"]) for k in ("submit", "start"))
    except (KeyError, TypeError, ValueError):
        return None
    return (start - submit).total_seconds()


def cost_row(experiment: FinishedExperiment) -> dict:
    """Return the time, memory, and cores that an experiment's runs used."""
    runs = experiment.runs
    waits = [wait for run in runs if (wait := queue_seconds(run)) is not None]
    seconds = [run.record["train_seconds"] for run in runs]
    return {
        "name": experiment.name,
        "device": ", ".join(sorted({run.device for run in runs})),
        "threads": ", ".join(sorted({str(run.record["threads"]) for run in runs})),
        "mean": float(np.mean(seconds)),
        "total": float(np.sum(seconds)),
        "memory": max(run.record["peak_memory_mb"] for run in runs),
        "queue": float(np.mean(waits)) if waits else None,
        "resumes": sum(run.record["resumes"] for run in runs),
    }


def data_rows(
    experiments: list[FinishedExperiment], test_set: TestSet
) -> list[tuple[str, list[str]]]:
    """Return what there is to know about the data: its name, its form, what was found in it."""
    record, (channels, height, width) = experiments[0].runs[0].record, test_set.input_shape
    rows = [
        ("data set", [str(record["dataset"] or record["data"])]),
        ("images", [f"{height} x {width} pixels, {'gray' if channels == 1 else 'color'}"]),
    ]
    lines = test_set.audit["lines"] if test_set.audit else []
    return [*rows, *([("found in the data", ["; ".join(lines)])] if lines else [])]


def origin(experiments: list[FinishedExperiment]) -> list[tuple[str, list[str]]]:
    """Return the versions and data behind the results, each with its distinct values."""
    runs = [run for each in experiments for run in each.runs]

    def distinct(value) -> list[str]:
        found = dict.fromkeys(str(value(run)) for run in runs)
        return ["unknown" if each == "None" else each for each in found]

    versions = runs[0].record["versions"]
    return [
        ("Git commit", distinct(lambda run: run.record["git_commit"])),
        ("SHA-256 of the dataset", distinct(lambda run: run.record["data_sha256"])),
        *((name, distinct(lambda run, n=name: run.record["versions"][n])) for name in versions),
        ("hosts", distinct(lambda run: run.record["host"])),
        ("training images", distinct(lambda run: f"{run.record['train_size']:,}")),
        ("validation images", distinct(lambda run: f"{run.record['validation_size']:,}")),
        ("deterministic algorithms", distinct(lambda run: run.record["deterministic"])),
        ("adopted", distinct(lambda run: run.adoption.text if run.adoption else "no")),
        ("first training started", [min(run.record["start"] for run in runs)]),
        ("last training ended", [max(run.record["end"] for run in runs)]),
    ]
