"""The report as one HTML file: the tables, the figures and the images, in words first."""

import base64
import io
from collections import Counter
from datetime import datetime
from itertools import combinations
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

import tables
import verdict
from figures import DARK, LIGHT, Figure, colour
from runs import Experiment, Run

TEMPLATES = Path(__file__).parents[1] / "workflow" / "report"
IMAGES = 12  # shown of each kind
GALLERIES = 6  # pairs of experiments whose images are shown
ANSWERS = 3  # experiments whose answers stand under an image that all get wrong


def render(
    experiments: list[Experiment],
    summary: list[dict],
    comparisons: list[dict],
    figures: list[Figure],
    images: np.ndarray,
    command: str | None,
) -> str:
    """Return the page.

    Args:
        experiments: what was trained.
        summary: rows of summary.csv.
        comparisons: rows of comparisons.csv.
        figures: the pictures.
        images: of the test set, uint8 [images, height, width].
        command: what to type to repeat the study, if known.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "points": points, "number": number, "p_value": p_text,
        "duration": duration, "data_uri": svg_uri,
    }  # fmt: skip
    names = [each.name for each in experiments]
    pairs = list(combinations(experiments, 2))
    return environment.get_template("page.html.j2").render(
        light=LIGHT,
        dark=DARK,
        title=" and ".join(names) if len(names) < 4 else f"{len(names)} experiments",
        sentences=verdict.sentences(summary, comparisons),
        summary=summary,
        comparisons=comparisons,
        figures={figure.name: figure for figure in figures},
        colours={name: colour(place) for place, name in enumerate(names)},
        differing=differing_settings(experiments),
        losses=sorted({each.settings["loss"] for each in experiments}),
        splits=sorted({run.history["split"].iloc[0] for each in experiments for run in each.runs}),
        galleries=[gallery(a, b, images) for a, b in pairs[:GALLERIES]],
        pairs=len(pairs),
        all_wrong=all_wrong(experiments, images),
        calibration={each.name: each.calibration[1] for each in experiments},
        costs=[cost_row(each) for each in experiments],
        origin=origin(experiments),
        settings={each.name: flat(each.settings) for each in experiments},
        test_size=experiments[0].right.shape[1],
        command=command,
    )


def svg_uri(svg: str) -> str:
    """Return a figure as the address of an image that needs no network."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def png_uri(image: np.ndarray) -> str:
    """Return an image uint8 [height, width] as such an address."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return `98.70`, or a dash where there is nothing."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def points(fraction: float | None) -> str:
    """Return a difference in points of percent with its sign."""
    return "–" if fraction is None else f"{100 * fraction:+.2f}".replace("-", "\N{MINUS SIGN}")


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands apart."""
    return "–" if value is None else f"{value:,.{digits}f}"


def p_text(p: float | None) -> str:
    """Return a p value's two leading digits."""
    return "–" if p is None else verdict.p_value(p).removeprefix("= ")


def duration(seconds: float | None) -> str:
    """Return `4.2 s`, `3 min 05 s` or `2 h 07 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def flat(settings: dict, prefix: str = "") -> dict[str, str]:
    """Return nested settings under names such as `optimizer.lr`."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = "none" if value is None else str(value)
    return found


def differing_settings(experiments: list[Experiment]) -> dict[str, dict[str, str]]:
    """Return, for each experiment, those of its settings that are not the same for all.

    The model's name is left out: it has a column of its own.
    """
    each = {experiment.name: flat(experiment.settings) for experiment in experiments}
    keys = dict.fromkeys(key for settings in each.values() for key in settings)
    keys.pop("model.name")
    differing = [key for key in keys if len({settings.get(key) for settings in each.values()}) > 1]
    return {
        name: {key: settings[key] for key in differing if key in settings}
        for name, settings in each.items()
    }


def answer(experiment: Experiment, index: int) -> tuple[str, float]:
    """Return the class that most runs give an image, and their mean confidence in it."""
    votes = Counter(int(run.prediction[index]) for run in experiment.runs)
    ((choice, _),) = votes.most_common(1)
    sure = [run.confidence[index] for run in experiment.runs if run.prediction[index] == choice]
    return experiment.runs[0].record["classes"][choice], float(np.mean(sure))


def tile(experiments: list[Experiment], index: int, images: np.ndarray) -> dict:
    """Return an image with its label and the experiments' answers."""
    first = experiments[0].runs[0]
    return {
        "index": int(index),
        "uri": png_uri(images[index]),
        "label": first.record["classes"][int(first.labels[index])],
        "answers": [(each.name, *answer(each, index)) for each in experiments],
    }


def gallery(a: Experiment, b: Experiment, images: np.ndarray) -> dict:
    """Return the images on which two experiments disagree, both ways.

    Shown first are those where the wrong one is most confident.
    """
    sides = []
    for right, wrong in ((a, b), (b, a)):
        found = tables.only_right(right, wrong)
        order = np.argsort([-answer(wrong, index)[1] for index in found], kind="stable")
        shown = [tile([right, wrong], index, images) for index in found[order][:IMAGES]]
        sides.append(
            {"right": right.name, "wrong": wrong.name, "count": len(found), "tiles": shown}
        )
    return {"a": a.name, "b": b.name, "sides": sides}


def all_wrong(experiments: list[Experiment], images: np.ndarray) -> dict:
    """Return the images that no run of any experiment gets right."""
    found = np.flatnonzero(~np.any([each.ever_right for each in experiments], axis=0))
    shown = [tile(experiments[:ANSWERS], index, images) for index in found[:IMAGES]]
    return {"count": len(found), "tiles": shown}


def queue_seconds(run: Run) -> float | None:
    """Return how long a run's Slurm job waited in the queue, or None where that is not known."""
    try:
        slurm = run.record["slurm"]
        submit, start = (datetime.fromisoformat(slurm[f"{k}_time"]) for k in ("submit", "start"))
    except (KeyError, TypeError, ValueError):
        return None
    return (start - submit).total_seconds()


def cost_row(experiment: Experiment) -> dict:
    """Return what an experiment's runs took."""
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


def origin(experiments: list[Experiment]) -> list[tuple[str, list[str]]]:
    """Return where the numbers come from: what was the same for all runs, or each value."""
    runs = [run for each in experiments for run in each.runs]

    def distinct(value) -> list[str]:
        found = dict.fromkeys(str(value(run)) for run in runs)
        return ["not known" if each == "None" else each for each in found]

    versions = runs[0].record["versions"]
    return [
        ("git commit", distinct(lambda run: run.record["git_commit"])),
        ("data set, SHA-256", distinct(lambda run: run.record["data_sha256"])),
        *((name, distinct(lambda run, n=name: run.record["versions"][n])) for name in versions),
        ("hosts", distinct(lambda run: run.record["host"])),
        ("training images", distinct(lambda run: f"{run.record['train_size']:,}")),
        ("validation images", distinct(lambda run: f"{run.record['validation_size']:,}")),
        ("deterministic algorithms", distinct(lambda run: run.record["deterministic"])),
        ("first training began", [min(run.record["start"] for run in runs)]),
        ("last training ended", [max(run.record["end"] for run in runs)]),
    ]
