"""An end-to-end test of a study with several seeds. Its tables are recomputed independently."""

import csv
import math
import re
import statistics

import pandas as pd
import pytest
from conftest import SMALL_STUDY, fresh_project
from scipy import special

CONFIG = f"""{SMALL_STUDY}seeds: [1, 2, 3, 4, 5]
runs_per_job: 15
training: {{epochs: 1}}
experiments:
  mlp: {{model: {{name: MLP}}}}
  narrow: {{model: {{name: MLP, hidden: 64}}}}
  again: {{model: {{name: MLP}}, seeds: [6, 7, 8, 9, 10]}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    project = fresh_project(tmp_path_factory.mktemp("study") / "project", data=True)
    (project.folder / "study.yaml").write_text(CONFIG)
    project.log = project.snakemake(config="study.yaml").stdout
    return project


def table(study, name):
    with (study.results / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def right(study, experiment, seeds):
    """Return, for each seed, whether each test image is classified correctly."""
    tables = [
        pd.read_csv(study.run_folder(experiment, seed) / "predictions.csv.gz") for seed in seeds
    ]
    return [(each["label"] == each["prediction"]).astype(int).tolist() for each in tables]


def quantile(seeds, images, share):
    """Return the weighted quantile of t for two pairs of variance and degrees of freedom.

    It is 5% larger than in theory.
    """
    both = [variance * special.stdtrit(freedom, share) for variance, freedom in (seeds, images)]
    return 1.05 * sum(both) / (seeds[0] + images[0])


def interval(seeds, images, value):
    """Return the interval and the standard error of a mean from the terms of its variance."""
    error = math.sqrt(seeds[0] + images[0])
    half = quantile(seeds, images, 0.975) * error
    return (value - half, value + half), error


def part(values):
    return statistics.variance(values) / len(values), len(values) - 1


def of_images(values):
    """Return the term of images, whose degrees of freedom follow from the fourth moment."""
    mean, number = statistics.mean(values), len(values)
    second, fourth = (sum((value - mean) ** power for value in values) for power in (2, 4))
    variance, freedom = part(values)
    return variance, min(freedom, 2 / (fourth / second**2 - 1 / number))


def test_summary(study):
    rows = table(study, "summary")
    seeds = {"mlp": range(1, 6), "narrow": range(1, 6), "again": range(6, 11)}
    assert [row["experiment"] for row in rows] == list(seeds)
    for row in rows:
        runs = right(study, row["experiment"], seeds[row["experiment"]])
        accuracies = [statistics.mean(run) for run in runs]
        images = [statistics.mean(column) for column in zip(*runs, strict=True)]
        mean = statistics.mean(accuracies)
        (low, high), _ = interval(part(accuracies), of_images(images), mean)
        found = [float(row[f"accuracy_{key}"]) for key in ("mean", "sd", "low", "high")]
        assert found == pytest.approx([mean, statistics.stdev(accuracies), low, high])
        assert (row["runs"], row["interval"]) == ("5", "t")
        assert float(row["accuracy_min"]) == min(accuracies)
        assert float(row["accuracy_max"]) == max(accuracies)


def test_comparisons(study):
    rows = {(row["a"], row["b"]): row for row in table(study, "comparisons")}
    assert list(rows) == [("mlp", "narrow"), ("mlp", "again"), ("narrow", "again")]
    seeds = {"mlp": range(1, 6), "narrow": range(1, 6), "again": range(6, 11)}
    p_values = {}
    for (a, b), row in rows.items():
        runs = [right(study, name, seeds[name]) for name in (a, b)]
        accuracy = [[statistics.mean(run) for run in each] for each in runs]
        images = [[statistics.mean(c) for c in zip(*each, strict=True)] for each in runs]
        by_image = [x - y for x, y in zip(*images, strict=True)]
        if seeds[a] == seeds[b]:
            by_seed = part([x - y for x, y in zip(*accuracy, strict=True)])
        else:
            (v, m), (w, n) = part(accuracy[0]), part(accuracy[1])
            by_seed = v + w, (v + w) ** 2 / (v**2 / m + w**2 / n)
        terms = by_seed, of_images(by_image)
        difference = statistics.mean(by_image)
        (low, high), error = interval(*terms, difference)
        found = [float(row[key]) for key in ("difference", "difference_low", "difference_high")]
        assert found == pytest.approx([difference, low, high])
        p_values[a, b] = float(row["p_value"])  # the interval at this level ends at zero
        assert quantile(*terms, 1 - p_values[a, b] / 2) * error == pytest.approx(abs(difference))
        all_a, all_b = ([all(c) for c in zip(*each, strict=True)] for each in runs)
        none_a, none_b = ([not any(c) for c in zip(*each, strict=True)] for each in runs)
        assert int(row["only_a_right"]) == sum(map(min, zip(all_a, none_b, strict=True)))
        assert int(row["only_b_right"]) == sum(map(min, zip(all_b, none_a, strict=True)))
        assert row["method"] == "t, seeds and images"
        steps = quantile(*terms, 1 - 0.05 / 3 / 2) + quantile(*terms, 0.8)
        assert float(row["detectable_difference"]) == pytest.approx(steps * error)
    smallest = 0.0
    for place, (pair, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        smallest = max(smallest, min(1, p * (3 - place)))
        assert float(rows[pair]["p_adjusted"]) == pytest.approx(smallest)
        assert rows[pair]["verdict"].endswith("better") == (smallest < 0.05)


def test_the_same_experiment_twice_does_not_differ(study):
    """Both have five seeds and share none."""
    row = next(r for r in table(study, "comparisons") if (r["a"], r["b"]) == ("mlp", "again"))
    assert row["verdict"] == "not shown"
    assert float(row["difference_low"]) < 0 < float(row["difference_high"])
    pairs = ("mlp is better than the again", "again is better than the mlp")
    assert any(f"It is not shown that the {pair}" in study.log for pair in pairs)
    assert "equal" not in study.log


def test_the_page_lists_the_settings_that_differ(study):
    page = (study.results / "report.html").read_text()
    summary, *_ = re.findall(r'<tr>\s*<th scope="row">[^/]*</span>narrow</span>(.*?)</th>', page)
    assert summary == '<span class="setting">model.hidden: 64</span>'
    assert page.count('class="setting"') == 1


def test_the_report_of_snakemake(study):
    """The figures and captions are included in Snakemake's own report."""
    study.snakemake("--report", "results/small/snakemake-report.html", config="study.yaml")
    text = (study.results / "snakemake-report.html").read_text()
    for name in ("accuracy", "learning-curves", "confusion", "class-accuracy", "calibration"):
        assert f"{name}.svg" in text
    assert "in 15 bins of equal width" in text


def test_two_seeds_are_too_few(study):
    study.script(
        "report", "--results", study.results, "--data", study.data, "--output", "two",
        "--runs", "mlp=1,2", "narrow=1,2", "again=6",
    )  # fmt: skip
    with (study.folder / "two/summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["interval"] for row in rows] == ["none", "none", "wilson"]
    assert (rows[0]["accuracy_low"], rows[0]["accuracy_high"]) == ("", "")
    with (study.folder / "two/comparisons.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["verdict"] for row in rows} == {"too few seeds"}
    assert {row["p_value"] for row in rows} == {""}
    assert "Too few seeds to compare" in (study.folder / "two/report.html").read_text()
