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
from sklearn.metrics import precision_recall_curve, roc_curve

from lib.core.metric import ACCURACY, Metric
from lib.core.records import kept_row
from lib.core.settings import loss_of
from lib.reporting.finished_runs import FinishedExperiment, FinishedRun
from lib.reporting.verdict import capitalized
from lib.training.measures import Answers

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
    "text.parse_math": False,  # a class may be called $5
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


def draw(
    experiments: list[FinishedExperiment], summary: list[dict], metric: Metric = ACCURACY
) -> list[Figure]:
    """Return all figures."""
    return [
        accuracy(experiments, summary, metric),
        learning_curves(experiments),
        confusion(experiments),
        class_accuracy(experiments),
        curves(experiments)
        if experiments[0].runs[0].test_set.positive is not None
        else class_areas(experiments),
        reliability(experiments),
        cost(experiments, summary),
    ]


def accuracy(experiments: list[FinishedExperiment], summary: list[dict], metric: Metric) -> Figure:
    """Draw each experiment's mean metric and interval, and each run as a dot; then the accuracy."""
    metrics = list(dict.fromkeys([metric, ACCURACY]))
    height = len(metrics) * (0.9 + 0.3 * len(experiments))
    figure, panels = plt.subplots(len(metrics), squeeze=False, figsize=(WIDTH, height))
    parts = [
        _values(*each, experiments, summary) for each in zip(panels.flat, metrics, strict=True)
    ]
    names = " and ".join(each.words for each in metrics)
    alt = " ".join(f"Test {each.words}: {text}" for each, text in zip(metrics, parts, strict=True))
    title = f"{capitalized(names)} by experiment"
    return finish(figure, "accuracy", title, alt)


def _values(
    axes, metric: Metric, experiments: list[FinishedExperiment], summary: list[dict]
) -> str:
    """Fill a panel with the values of a metric, and return those in words."""
    factor, unit, parts = metric.factor, metric.unit, []
    for place, (each, row) in enumerate(zip(experiments, summary, strict=True)):
        look = {"color": color(place)}
        mean, low, high = (row[f"{metric.name}_{end}"] for end in ("mean", "low", "high"))
        if mean is None:
            continue
        if low is not None:
            ends = factor * low, factor * high
            axes.plot(ends, (place, place), linewidth=5, alpha=0.35, solid_capstyle="butt", **look)
        runs = [factor * run.scores[metric.name] for run in each.runs]
        axes.plot(runs, [place] * len(runs), ".", alpha=0.6, markersize=5, **look)
        axes.plot(factor * mean, place, MARKERS[place % len(MARKERS)], markersize=7, **look)
        parts.append(f"{row['experiment']} {factor * mean:.{2 if unit else 4}f}{unit}")
    axes.set_yticks(range(len(experiments)), [each.name for each in experiments])
    axes.set_ylim(len(experiments) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"test images: {metric.words}{f' ({unit})' if unit else ''}")
    return _few(parts)


def learning_curves(experiments: list[FinishedExperiment]) -> Figure:
    """Draw losses and held-out accuracy by epoch: one line per run, and a band over them."""
    losses = sorted({_loss(each) for each in experiments})
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
            if loss in (None, _loss(each)):
                _curve(panel, place, each, column, 100 if column == "accuracy" else 1)
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_xlabel("epoch")
    _legend(figure, experiments)
    splits = sorted({run.history["split"].iloc[0] for each in experiments for run in each.runs})
    last = [
        (each, np.mean([run.history["accuracy"].iloc[kept_row(run.record)] for run in each.runs]))
        for each in experiments
    ]
    chosen = any(kept_row(run.record) != -1 for each in experiments for run in each.runs)
    alt = f"Training loss, and loss and accuracy on the {' and '.join(splits)} images, by epoch. "
    alt += f"Accuracy after the {'epoch that is kept' if chosen else 'last epoch'}: " + _few(
        f"{e.name} {100 * value:.2f}%" for e, value in last
    )
    return finish(figure, "learning-curves", "Learning curves", alt)


def _loss(experiment: FinishedExperiment) -> str:
    """Return the name of the loss that an experiment minimizes."""
    return loss_of(experiment.settings["loss"])["name"]


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
    shortest = min(len(epochs) for epochs, _ in lines)  # one may end before the others
    epochs, values = lines[0][0][:shortest], np.stack([values[:shortest] for _, values in lines])
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
    """Draw confusion matrices: test images by label and prediction, mean over the seeds.

    A cell is the share of its row, below which is the number of images.
    """
    shown, columns = experiments[:MATRICES], min(2, len(experiments))
    rows = math.ceil(len(shown) / columns)
    side = WIDTH / columns * 1.6
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(columns * side, rows * side))
    worst = []
    classes = experiments[0].runs[0].record["classes"]
    for panel, each in zip(axes.flat, shown, strict=False):
        counts = sum(confusion_counts(run, len(classes)) for run in each.runs) / len(each.seeds)
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
    """Draw each experiment's recall by class: its accuracy on the images of the class."""
    names = [f"recall:{name}" for name in experiments[0].runs[0].test_set.classes]
    values = [
        np.mean([[run.scores[name] for name in names] for run in each.runs], axis=0, dtype=float)
        for each in experiments
    ]
    about = "class-accuracy", "Accuracy by class", "accuracy (recall), %"
    return _by_class(experiments, 100 * np.array(values), 1, *about)


def class_areas(experiments: list[FinishedExperiment]) -> Figure:
    """Draw each experiment's area under the ROC curve of each class against the rest."""
    values = np.full((len(experiments), len(experiments[0].runs[0].test_set.classes)), np.nan)
    for row, each in zip(values, experiments, strict=True):
        for number in set.intersection(*(set(run.areas) for run in each.runs)):
            row[number] = np.mean([run.areas[number] for run in each.runs])
    return _by_class(experiments, values, 3, "roc", "Area under the ROC curve by class", "AUROC")


def _by_class(
    experiments: list[FinishedExperiment],
    values: np.ndarray,
    digits: int,
    name: str,
    title: str,
    what: str,
) -> Figure:
    """Draw a table of values by experiment and class; NaN is left empty."""
    classes = experiments[0].runs[0].test_set.classes
    figure, panel = plt.subplots(figsize=(WIDTH * 1.2, 0.9 + 0.3 * len(experiments)))
    known = values[np.isfinite(values)]
    largest = 100 if digits == 1 else 1
    scale = Normalize(known.min(initial=largest) - largest / 100, largest)
    texts = np.vectorize(f"{{:.{digits}f}}".format)(values)
    names = [each.name for each in experiments]
    _cells(panel, values, names, classes, np.where(np.isfinite(values), texts, ""), scale)
    panel.set_xlabel(f"class (cells: {what})")
    hardest = [
        f"{each.name} {classes[int(np.nanargmin(row))]} ({np.nanmin(row):.{digits}f})"
        for each, row in zip(experiments, values, strict=True)
        if np.isfinite(row).any()
    ]
    alt = f"{title}. The hardest class of each experiment: " + _few(hardest)
    return finish(figure, name, title, alt)


def curves(experiments: list[FinishedExperiment]) -> Figure:
    """Draw the ROC and the precision-recall curve of the positive class, mean over the runs."""
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH * 1.4, WIDTH * 0.75))
    grid, areas = np.linspace(0, 1, 201), []
    for place, each in reversed(list(enumerate(experiments))):
        if any(run.scores["auroc"] is None for run in each.runs):  # in a fold without the class
            areas.insert(0, f"{each.name}: no AUROC")
            continue
        both = [curves_of(run.answers, grid) for run in each.runs]
        for panel, line in zip(panels, np.mean(both, axis=0), strict=True):
            panel.plot(100 * grid, 100 * line, linewidth=1.2, **_look(place))
        area = np.mean([run.scores["auroc"] for run in each.runs])
        areas.insert(0, f"{each.name}: AUROC {area:.3f}")
    test_set = experiments[0].runs[0].test_set
    share = 100 * np.mean(test_set.labels == test_set.positive)
    for panel, ends in zip(panels, ((0, 100), (share, share)), strict=True):
        panel.plot((0, 100), ends, color=INK, linewidth=0.8, linestyle=":")
    name = test_set.classes[test_set.positive]
    panels[0].set(xlabel=f"of the others, taken for {name} (%)", ylabel=f"of {name}, found (%)")
    panels[1].set(xlabel=f"of {name}, found: recall (%)", ylabel="precision (%)", ylim=(0, 102))
    _legend(figure, experiments, areas[:LEGEND] or None)
    alt = f"ROC curve and precision-recall curve of {name}. " + _few(areas)
    return finish(figure, "roc", "ROC and precision-recall curves", alt)


def curves_of(answers: Answers, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rate of true positives by that of false ones, and the precision by the recall.

    Args:
        answers: of one run, of two classes.
        grid: the rates, and the recalls, at which they are returned, ascending.
    """
    right, sure = answers.labels == answers.positive, answers.probabilities[:, answers.positive]
    false, true, _ = roc_curve(right, sure)
    precision, recall, _ = precision_recall_curve(right, sure)
    precision, recall = precision[::-1], recall[::-1]
    at_least = np.minimum(np.searchsorted(recall, grid), len(recall) - 1)
    return np.interp(grid, false, true), precision[at_least]


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
    """Draw how often what is said with a given confidence is so, for all runs together.

    On the left, of the prediction; on the right, of the positive class, or of every class.
    """
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH * 1.4, WIDTH * 0.75))
    errors = []
    for panel in panels:
        panel.plot((0, 100), (0, 100), color=INK, linewidth=0.8, linestyle=":")
    for place, each in reversed(list(enumerate(experiments))):
        both = each.calibration, each.class_calibration
        errors.insert(0, f"{each.name}: ECE {100 * both[0][1]:.2f}%")
        for panel, (points, _) in zip(panels, both, strict=True):
            sure, share, _ = (100 * np.array(column) for column in zip(*points, strict=True))
            marker = MARKERS[place % len(MARKERS)]
            panel.plot(sure, share, marker=marker, markersize=4, **_look(place))
    test_set = experiments[0].runs[0].test_set
    what = "a class" if test_set.positive is None else test_set.classes[test_set.positive]
    panels[0].set(xlabel="mean confidence (%)", ylabel="correct predictions (%)")
    panels[1].set(xlabel=f"mean probability of {what} (%)", ylabel=f"images of {what} (%)")
    _legend(figure, experiments, errors[:LEGEND])
    alt = (
        "Reliability: how often predictions of a given confidence are correct, and how many of the "
        f"images with a given probability of {what} are of it. "
    )
    return finish(figure, "calibration", "Calibration", alt + _few(errors))


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
    return (", ".join(parts[:most]) or "none") + more + "."


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
