"""The report's figures, as reproducible SVG that follows the reader's light or dark mode."""

import io
import math
import re
from dataclasses import dataclass
from html import escape

import matplotlib
import numpy as np

matplotlib.use("svg")  # needs no display
import matplotlib.pyplot as plt
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.ticker import MaxNLocator

from lib.reporting.finished_runs import FinishedExperiment, FinishedRun

# Distinguishable with any color vision, with a contrast of at least 3:1 on white and on black.
# Each color also has its own marker.
COLORS = ("#4477aa", "#ee6677", "#228833", "#997700", "#aa5599", "#0093a5")
MARKERS = "osD^vP"
OTHER = "#858b93"  # for all further experiments
INK = "#010203"  # replaced by the color of the text around the figure
LIGHT, DARK = ("#1f2328", "#ffffff"), ("#d8dce2", "#15171b")  # text and background
STYLE = (
    f"<style>svg{{color:{LIGHT[0]};background:{LIGHT[1]}}}"
    f"@media (prefers-color-scheme:dark){{svg{{color:{DARK[0]};background:{DARK[1]}}}}}"
    f"@media print{{svg{{color:{LIGHT[0]};background:{LIGHT[1]}}}}}</style>"
)
WIDTH = 5.2  # inches
LEGEND = len(COLORS)
MATRICES = 50  # maximum number of confusion matrices
DRAWN = 1e100  # larger losses are left out, like those that are infinite: matplotlib overflows
NUMBERED = 20  # with more classes than this, cells have no numbers
NAMED = 20  # names along a side; of more classes, every second one, or third, ...

plt.rcParams |= {
    "svg.fonttype": "none", "svg.hashsalt": "figures", "font.family": "sans-serif",
    "font.size": 8.5, "axes.titlesize": 9, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.15,
    "grid.linewidth": 0.6, "legend.frameon": False, "figure.constrained_layout.use": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color",
         "grid.color", "axes.titlecolor", "legend.labelcolor"),
        INK,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure: the name of its file, its title, its text alternative, and its SVG."""

    name: str
    title: str
    alt: str
    svg: str


def color(index: int) -> str:
    """Return the color of the experiment at a position in the config."""
    return COLORS[index] if index < LEGEND else OTHER


def draw(experiments: list[FinishedExperiment], summary: list[dict]) -> list[Figure]:
    """Return all figures."""
    return [
        accuracy(experiments, summary),
        learning_curves(experiments),
        confusion(experiments),
        class_accuracy(experiments),
        reliability(experiments),
        cost(experiments, summary),
    ]


def accuracy(experiments: list[FinishedExperiment], summary: list[dict]) -> Figure:
    """Draw each experiment's mean accuracy and interval, and each run as a dot."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.3 * len(experiments)))
    for place, (each, row) in enumerate(zip(experiments, summary, strict=True)):
        look = {"color": color(place)}
        if row["accuracy_low"] is not None:
            ends = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
            axes.plot(ends, (place, place), linewidth=5, alpha=0.35, solid_capstyle="butt", **look)
        runs = [100 * run.accuracy for run in each.runs]
        axes.plot(runs, [place] * len(runs), ".", alpha=0.6, markersize=5, **look)
        mean, marker = 100 * row["accuracy_mean"], MARKERS[place % len(MARKERS)]
        axes.plot(mean, place, marker, markersize=7, **look)
    axes.set_yticks(range(len(experiments)), [each.name for each in experiments])
    axes.set_ylim(len(experiments) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("test accuracy (%)")
    parts = [f"{row['experiment']} {100 * row['accuracy_mean']:.2f}%" for row in summary]
    return finish(figure, "accuracy", "Accuracy by experiment", "Test accuracy: " + _few(parts))


def learning_curves(experiments: list[FinishedExperiment]) -> Figure:
    """Draw losses and held-out accuracy by epoch: one line per run, and a band over the seeds."""
    losses = sorted({each.settings["loss"] for each in experiments})
    panels = [
        (column, loss, f"{what} loss{f' ({loss})' if len(losses) > 1 else ''}")
        for loss in losses
        for column, what in (("train_loss", "training"), ("loss", "held-out"))
    ]
    panels.append(("accuracy", None, "held-out accuracy (%)"))
    figure, axes = plt.subplots(
        len(panels), squeeze=False, sharex=True, figsize=(WIDTH, 0.4 + 1.6 * len(panels))
    )
    for panel, (column, loss, label) in zip(axes.flat, panels, strict=True):
        for place, each in reversed(list(enumerate(experiments))):  # draws the first on top
            if loss in (None, each.settings["loss"]):
                _curve(panel, place, each, column, 100 if column == "accuracy" else 1)
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_xlabel("epoch")
    _legend(figure, experiments)
    splits = sorted({run.history["split"].iloc[0] for each in experiments for run in each.runs})
    last = [
        (each, np.mean([run.history["accuracy"].iloc[-1] for run in each.runs]))
        for each in experiments
    ]
    alt = f"Training loss, and loss and accuracy on the {' and '.join(splits)} images, by epoch. "
    alt += "Accuracy after the last epoch: " + _few(
        f"{e.name} {100 * value:.2f}%" for e, value in last
    )
    return finish(figure, "learning-curves", "Learning curves", alt)


def _look(place: int) -> dict:
    """Return the style of an experiment's lines. Those without their own color are faint."""
    return {"color": color(place), "alpha": 0.9 if place < LEGEND else 0.3}


def _curve(panel, place: int, experiment: FinishedExperiment, column: str, scale: float) -> None:
    look = _look(place)
    lines = []
    for run in experiment.runs:
        values = scale * run.history[column].to_numpy()
        values = np.where(np.abs(values) < DRAWN, values, np.nan)
        lines.append((run.history["epoch"].to_numpy(), values))
    marker = MARKERS[place] if place < LEGEND else "."
    if len(lines) == 1:
        panel.plot(*lines[0], marker=marker, markersize=4, linewidth=1.2, **look)
        return
    for line in lines:
        panel.plot(*line, linewidth=0.5, **look | {"alpha": 0.4 * look["alpha"]})
    if len({len(epochs) for epochs, _ in lines}) == 1:
        epochs, values = lines[0][0], np.stack([values for _, values in lines])
        ends = values.min(axis=0), values.max(axis=0)
        panel.fill_between(epochs, *ends, linewidth=0, **look | {"alpha": 0.2 * look["alpha"]})
        panel.plot(epochs, values.mean(axis=0), marker=marker, markersize=4, **look)


def _legend(figure, experiments: list[FinishedExperiment], notes: list[str] | None = None) -> None:
    handles = [
        plt.Line2D([], [], color=color(place), marker=MARKERS[place], markersize=4)
        for place in range(min(LEGEND, len(experiments)))
    ]
    labels = notes or [each.name for each in experiments[:LEGEND]]
    if len(experiments) > LEGEND:
        handles.append(plt.Line2D([], [], color=OTHER))
        labels.append(f"{len(experiments) - LEGEND} others")
    columns = 2 if notes or max(map(len, labels)) > 12 else 4
    figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(labels)))


def confusion(experiments: list[FinishedExperiment]) -> Figure:
    """Draw confusion matrices: test images by label and prediction, mean over the runs.

    A cell is the share of its row, below which is the number of images.
    """
    shown, columns = experiments[:MATRICES], min(2, len(experiments))
    rows = math.ceil(len(shown) / columns)
    side = WIDTH / columns * 1.6
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(columns * side, rows * side))
    worst = []
    classes = experiments[0].runs[0].record["classes"]
    for panel, each in zip(axes.flat, shown, strict=False):
        counts = sum(confusion_counts(run, len(classes)) for run in each.runs) / len(each.runs)
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        scale = PowerNorm(0.5, 0, 100)  # keeps rare mistakes visible
        texts = np.vectorize(lambda share, count: f"{share:.1f}%\n{count:.0f}")(shares, counts)
        _cells(panel, shares, classes, classes, np.where(counts > 0, texts, ""), scale)
        panel.set(title=each.name, xlabel="prediction", ylabel="label")
        wrong = counts - np.diag(np.diag(counts))
        label, prediction = np.unravel_index(wrong.argmax(), wrong.shape)
        mistake = f"{classes[label]} as {classes[prediction]} ({wrong.max():.3g} times)"
        worst.append(f"{each.name} {mistake if wrong.any() else 'none'}")
    for panel in axes.flat[len(shown) :]:
        panel.axis("off")
    alt = (
        "Confusion matrices: test images by label and prediction, in percent of the label. "
        "The most frequent mistakes: " + _few(worst)
    )
    return finish(figure, "confusion", "Confusion matrices", alt)


def confusion_counts(run: FinishedRun, classes: int) -> np.ndarray:
    """Return the number of images by label (row) and prediction (column)."""
    cells = run.labels.astype(int) * classes + run.prediction
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_accuracy(experiments: list[FinishedExperiment]) -> Figure:
    """Draw each experiment's accuracy by class."""
    classes = experiments[0].runs[0].record["classes"]
    labels = experiments[0].runs[0].labels
    members = [labels == number for number in range(len(classes))]
    values = np.array(
        [[100 * each.right[:, m].mean() if m.any() else np.nan for m in members]
         for each in experiments]
    )  # fmt: skip
    figure, panel = plt.subplots(figsize=(WIDTH * 1.2, 0.9 + 0.3 * len(experiments)))
    scale = Normalize(np.nanmin(values) - 1, 100)
    texts = np.where(np.isfinite(values), np.vectorize("{:.1f}".format)(values), "")
    _cells(panel, values, [each.name for each in experiments], classes, texts, scale)
    panel.set_xlabel("class (cells: accuracy, %)")
    hardest = [
        f"{each.name} {classes[int(np.nanargmin(row))]} ({np.nanmin(row):.1f}%)"
        for each, row in zip(experiments, values, strict=True)
    ]
    alt = "Accuracy by class. The hardest class of each experiment: " + _few(hardest)
    return finish(figure, "class-accuracy", "Accuracy by class", alt)


def _cells(panel, values, rows, columns, texts, scale) -> None:
    """Fill a panel with colored cells. With few classes, they show their texts."""
    lines = 0.3 if len(columns) <= 2 * NAMED else 0  # they would cover what is between them
    panel.pcolormesh(values, cmap="Blues", norm=scale, linewidth=lines, edgecolor="#8888")
    panel.grid(visible=False)
    panel.invert_yaxis()
    long = max(map(len, columns)) > 3
    look = {"rotation": 45, "ha": "right"} if long else {"ha": "center"}
    for names, set_ticks, more in (
        (columns, panel.set_xticks, look),
        (rows, panel.set_yticks, {}),
    ):
        places = range(0, len(names), math.ceil(len(names) / NAMED))
        set_ticks([place + 0.5 for place in places], [names[place] for place in places], **more)
    panel.tick_params(length=0)
    if len(columns) > NUMBERED:
        return
    size = 8 if len(columns) <= 4 else 6.5 if "\n" not in "".join(texts.flat) else 5
    for (row, column), value in np.ndenumerate(values):
        ink = "#ffffff" if scale(value) > 0.55 else "#000000"
        place = (column + 0.5, row + 0.5)
        panel.text(*place, texts[row, column], color=ink, size=size, ha="center", va="center")


def reliability(experiments: list[FinishedExperiment]) -> Figure:
    """Draw how often predictions of a given confidence are correct, for all runs together."""
    figure, panel = plt.subplots(figsize=(WIDTH, WIDTH * 0.8))
    panel.plot((0, 100), (0, 100), color=INK, linewidth=0.8, linestyle=":")
    errors = []
    for place, each in reversed(list(enumerate(experiments))):
        points, error = each.calibration
        errors.insert(0, f"{each.name}: ECE {100 * error:.2f}%")
        sure, share, _ = (100 * np.array(column) for column in zip(*points, strict=True))
        marker = MARKERS[place % len(MARKERS)]
        panel.plot(sure, share, marker=marker, markersize=4, **_look(place))
    panel.set(xlabel="mean confidence (%)", ylabel="correct predictions (%)")
    _legend(figure, experiments, errors[:LEGEND])
    alt = "Reliability: how often predictions of a given confidence are correct. " + _few(errors)
    return finish(figure, "calibration", "Calibration", alt)


def cost(experiments: list[FinishedExperiment], summary: list[dict]) -> Figure:
    """Draw accuracy against training time, one point per run."""
    figure, panel = plt.subplots(figsize=(WIDTH, WIDTH * 0.6))
    times = []
    for place, each in reversed(list(enumerate(experiments))):
        seconds = [run.record["train_seconds"] for run in each.runs]
        panel.plot(
            seconds, [100 * run.accuracy for run in each.runs],
            MARKERS[place % len(MARKERS)], markersize=6,
            color=color(place), alpha=0.75 if place < LEGEND else 0.4,
        )  # fmt: skip
        times.insert(0, f"{each.name} {np.mean(seconds):.3g} s")
    everything = [run.record["train_seconds"] for each in experiments for run in each.runs]
    if max(everything) > 10 * min(everything):
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")  # between powers of ten, there is no room for numbers
    else:
        panel.set_xlim(left=0)
    panel.set(xlabel="training time per run (s)", ylabel="test accuracy (%)")
    _at_least_as_high_as_an_interval(panel, summary)
    _legend(figure, experiments)
    alt = "Test accuracy against training time. Mean training time: " + _few(times)
    return finish(figure, "cost", "Accuracy against training time", alt)


def _at_least_as_high_as_an_interval(panel, summary: list[dict]) -> None:
    """Let the axis of accuracies be no shorter than an interval: smaller differences are none."""
    known = [row for row in summary if row["accuracy_low"] is not None]
    widths = [100 * (row["accuracy_high"] - row["accuracy_low"]) for row in known]
    low, high = panel.get_ylim()
    missing = max(widths, default=0) - (high - low)
    if missing > 0:
        panel.set_ylim(low - missing / 2, high + missing / 2)


def _few(parts, most: int = 8) -> str:
    parts = list(parts)
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more + "."


def finish(figure, name: str, title: str, alt: str) -> Figure:
    """Return a figure of matplotlib's, with its name, its title and its text alternative."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = re.sub(r"^.*?(?=<svg )", "", text.getvalue(), flags=re.DOTALL)  # removes prolog and DTD
    svg = svg.replace(INK, "currentColor")
    head = f"<title>{title}</title><desc>{escape(alt)}</desc>{STYLE}"
    end = svg.index(">") + 1
    return Figure(name, title, alt, svg[:end] + head + svg[end:])
