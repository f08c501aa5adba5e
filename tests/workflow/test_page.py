"""Tests of the page in a real browser: headless Chromium from Debian."""

import csv
import functools
import io
import re
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import IN_CI, Project, cases
from made_up import change_record, make_up
from PIL import Image
from playwright.sync_api import sync_playwright

SHAPES = ("two", "one with one epoch", "fifty", "incomplete", "search")


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        reason = "the tests of the page need Chromium: apt-get install chromium"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    with sync_playwright() as playwright:
        # Without the sandbox, Chromium also starts as root, for example in a container.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(finished_once, request, tmp_path_factory):
    """Return a function that gives the folder of a report of a shape.

    Two experiments, one with one epoch, fifty with five seeds, three that are incomplete, and a
    search.
    """

    @functools.cache
    def folder_of(shape: str) -> Path:
        if shape == "two":
            return finished_once.results
        if shape == "search":
            return request.getfixturevalue("finished_search").results
        folder = tmp_path_factory.mktemp("report")
        mlp = finished_once.run_folder("mlp")
        if shape == "one with one epoch":
            shutil.copytree(mlp, folder / "runs/mlp/seed1")
            history = folder / "runs/mlp/seed1/history.csv"
            history.write_text("".join(history.read_text().splitlines(keepends=True)[:2]))
            settings = finished_once.record("mlp")["settings"] | {"epochs": 1}
            change_record(folder / "runs/mlp/seed1", "run.json", settings=settings)
        elif shape == "fifty":
            make_up(folder, mlp, experiments=50, seeds=5)
        else:
            make_up(folder, mlp, experiments=3, seeds=3)
            for run in ("made01/seed2", "made02/seed1", "made02/seed2", "made02/seed3"):
                (folder / "runs" / run / "predictions.csv.gz").write_text("")
        options = ("--results", folder, "--data", finished_once.data, "--incomplete")
        options += ("--metric", "auroc") if shape == "incomplete" else ()
        finished_once.script("report", *options)
        return folder

    return folder_of


class Visit:
    """The page in a browser window, with a list of the problems that it caused."""

    def __init__(self, browser, folder: Path, width=1400, scheme="light"):
        self.window = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.problems = []
        self.window.on("console", lambda message: self.problems.append(message.text))
        self.window.on("pageerror", lambda error: self.problems.append(str(error)))
        self.window.on("request", self.requested)
        self.address = (folder / "report.html").as_uri()
        self.window.goto(self.address)

    def requested(self, request):
        if request.url != self.address and not request.url.startswith("data:"):
            self.problems.append(request.url)


@pytest.fixture
def visit(browser, reports):
    visits = []

    def open_page(shape, **options):
        visits.append(Visit(browser, reports(shape), **options))
        return visits[-1]

    yield open_page
    for each in visits:
        assert each.problems == []
        each.window.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("shape", cases(SHAPES, "two"))
def test_axe_finds_no_violation(visit, shape, scheme):
    page = visit(shape, scheme=scheme).window
    for details in page.query_selector_all("details"):
        details.evaluate("each => each.open = true")
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("width", [360, 800, 1400])
@pytest.mark.parametrize("shape", cases(SHAPES, "two", "search"))
def test_nothing_overflows_the_window(visit, shape, width):
    page = visit(shape, width=width).window
    for details in page.query_selector_all("details"):
        details.evaluate("each => each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_tables_of_two_experiments_fit_a_wide_screen(visit):
    widths = visit("two").window.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert len(widths) >= 3
    for content, shown in widths:
        assert content <= shown


@pytest.mark.parametrize("shape", cases(SHAPES, "two", "search"))
def test_every_image_is_rendered(visit, shape):
    page = visit(shape).window
    sizes = page.eval_on_selector_all("img", "all => all.map(img => [img.naturalWidth, img.alt])")
    assert all(width > 0 and alt for width, alt in sizes)
    figures = [alt for _, alt in sizes if not alt.startswith("Test image")]
    assert len(figures) == (8 if shape == "search" else 7)


def test_the_background_is_white_in_print(visit):
    """The background of the figures is white as well, even in dark mode."""
    page = visit("two", scheme="dark").window
    figure = page.locator("img.plot").first
    backgrounds = []
    for media in ("screen", "print"):
        page.emulate_media(media=media)
        corner = Image.open(io.BytesIO(figure.screenshot())).convert("RGB").getpixel((3, 3))
        backgrounds.append(corner)
    assert backgrounds == [(21, 23, 27), (255, 255, 255)]


def column(page, table, number):
    rows = f"table.sortable >> nth={table} >> tbody tr"
    return [row.query_selector_all("th, td")[number].inner_text() for row in page.locator(rows)
            .element_handles()]  # fmt: skip


@pytest.mark.extended
def test_a_click_on_a_heading_sorts(visit):
    page = visit("fifty").window
    before = column(page, 0, 3)
    heading = page.get_by_role("button", name="Accuracy (%)")
    heading.click()
    ascending = column(page, 0, 3)
    assert ascending == sorted(before, key=float) != before
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Accuracy")
    heading.focus()
    page.keyboard.press("Enter")
    assert [float(x) for x in column(page, 0, 3)] == sorted(map(float, before), reverse=True)
    names = column(page, 0, 0)
    page.get_by_role("button", name="Experiment").first.click()
    assert column(page, 0, 0) == sorted(names)


def test_sorting_keeps_the_cells_of_a_row_together(visit):
    page = visit("two").window
    rows = "table.sortable >> nth=0 >> tbody tr"
    before = sorted(page.locator(rows).all_inner_texts())
    page.get_by_role("button", name="Test loss").click()
    assert sorted(page.locator(rows).all_inner_texts()) == before
    assert [float(x) for x in column(page, 0, 6)] == sorted(map(float, column(page, 0, 6)))


def test_the_page_agrees_with_the_tables(visit, reports):
    page = visit("two").window
    with (reports("two") / "summary.csv").open() as file:
        summary = sorted(csv.DictReader(file), key=lambda row: -float(row["accuracy_mean"]))
    for number, row in enumerate(summary):
        assert column(page, 0, 0)[number] == row["experiment"]
        assert column(page, 0, 3)[number] == f"{100 * float(row['accuracy_mean']):.2f}"
        ends = (f"{100 * float(row[f'accuracy_{end}']):.2f}" for end in ("low", "high"))
        assert column(page, 0, 4)[number] == " to ".join(ends)
    with (reports("two") / "comparisons.csv").open() as file:
        (row,) = csv.DictReader(file)
    headings = page.locator("h3").all_inner_texts()
    for one, other, count in (("cnn", "mlp", "only_b_right"), ("mlp", "cnn", "only_a_right")):
        assert any(
            re.fullmatch(rf"{one} correct, {other} wrong: {row[count]} images?", heading)
            for heading in headings
        )
    tiles = page.locator(".tiles").first.locator("li")
    assert tiles.count() == min(12, int(row["only_b_right"]))
    assert tiles.first.locator("img").bounding_box()["width"] >= 64


def test_the_page_says_first_that_runs_are_missing(visit):
    page = visit("incomplete", width=360).window
    box = page.get_by_role("region", name="Missing runs")
    assert "This report is incomplete: 4 of 9 runs are missing." in box.inner_text()
    assert box.locator("li").count() == 4
    assert box.bounding_box()["y"] < page.get_by_role("region", name="Verdict").bounding_box()["y"]
    assert column(page, 0, 2) == ["2 of 3", "3", "0 of 3"]  # the best first
    assert column(page, 2, 1) == ["incomplete"] * 3
    assert visit("two").window.get_by_role("region", name="Missing runs").count() == 0


@pytest.mark.extended
def test_the_page_is_small(reports):
    assert (reports("two") / "report.html").stat().st_size < 3e6
    assert (reports("fifty") / "report.html").stat().st_size < 15e6


def test_the_page_shows_the_command_that_reproduces_it(visit):
    command = visit("two").window.locator("pre code").inner_text()
    assert command == "snakemake --profile profiles/local --configfile results/small/study.yaml"


def test_figures_are_reproducible(finished_once, tmp_path):
    Project(finished_once.folder).script(
        "report", "--results", finished_once.results, "--data", finished_once.data,
        "--output", tmp_path, "--runs", "mlp=1", "cnn=1",
    )  # fmt: skip
    for path in (finished_once.results / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "figures" / path.name).read_bytes(), path.name
