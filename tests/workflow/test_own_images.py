"""Studies of images of one's own, from their files to the report."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from color_images import SEARCH, write_color_images
from conftest import BIN
from PIL import Image
from safetensors.numpy import load_file

from lib.reporting.page import png_uri

STUDY = """
results_dir: results/small
dataset: mine
datasets_file: mine.yaml
training: {epochs: 1, shuffle: true, validation_size: 0.25}
experiments:
  mlp: {model: {name: MLP, hidden: 8}}
  cnn: {model: {name: CNN}}
"""


def write(project, entry: str, config: str = STUDY) -> None:
    (project.folder / "mine.yaml").write_text(f"mine:\n{entry}")
    (project.folder / "study.yaml").write_text(config)


@pytest.fixture
def colors(project):
    write_color_images(project.folder / "colors")
    write(project, "  folder: colors\n  test_share: 0.25\n")
    return project


def test_a_folder_of_color_images_to_a_report(colors):
    colors.snakemake(config="study.yaml")
    with (colors.results / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["test_size"] for row in rows] == ["30", "30"]
    assert float(rows[0]["test_accuracy"]) > 0.9  # whoever sees gray cannot tell them
    record = colors.record("cnn")
    assert (record["channels"], record["image_size"]) == (3, [12, 12])
    assert (record["train_size"], record["validation_size"]) == (68, 22)
    log = (colors.results / "logs/prepare-mine.log").read_text()
    assert "mine: 90 training and 30 test images of 3 classes; 33.3% of the test images" in log
    assert colors.planned(config="study.yaml") == set()
    shutil.copy(colors.folder / "colors/red/0.png", colors.folder / "colors/red/copy.png")
    assert {"prepare", "train cnn 1"} <= colors.planned(config="study.yaml")
    (colors.folder / "colors/red/copy.png").unlink()
    assert colors.planned(config="study.yaml") == set()
    # What is only moved away is no reason to do anything again.
    shutil.move(colors.folder / "colors", colors.folder / "archive")
    assert colors.planned(config="study.yaml") == set()


@pytest.mark.extended
def test_mnist_from_png_files_has_the_bits_of_mnist(project, finished_once):
    tensors = load_file(finished_once.data)
    for split in ("train", "test"):
        images, labels = tensors[f"{split}_images"][:, 0], tensors[f"{split}_labels"]
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = project.folder / "digits" / split / str(label) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    config = f"{STUDY.partition('training:')[0]}training: {{epochs: 2}}\n"
    config += "experiments:\n  mlp: {model: {name: MLP}}\n"
    write(project, "  folder: digits\n  mean: 0.1307\n  std: 0.3081\n", config)
    project.snakemake("--until", "evaluate", config="study.yaml")
    files = ("model.safetensors", "accuracy.csv")
    for name in files:
        here, there = (each.run_folder("mlp") / name for each in (project, finished_once))
        assert here.read_bytes() == there.read_bytes(), name


def test_the_page_shows_colors():
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    content = base64.b64decode(png_uri(image).partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(shown, image.transpose(1, 2, 0))


WRONG = {
    "no folder": ("  folder: colours\n  test_share: 0.2\n", "folder: there is no folder colours"),
    "no share": ("  folder: colors\n", "test_share: the data does not say"),
    "a class": ("  folder: colors\n  test_share: 0.2\n  classes: [red, green, pink]\n", "'pink'"),
}


@pytest.mark.parametrize(("entry", "said"), WRONG.values(), ids=WRONG)
def test_a_dry_run_looks_at_the_data(colors, entry, said):
    write(colors, entry)
    done = colors.snakemake("-n", config="study.yaml", check=False)
    assert done.returncode == 1
    assert f"mine.yaml: mine: {said}" in done.stdout or said in done.stdout
    assert "Traceback" not in done.stdout


def test_a_model_that_takes_image_size_is_told_what_to_change(colors):
    colors.edit("scripts/models/mlp.py", "input_shape", "image_size")
    done = colors.script("check", "--configfile", "study.yaml", check=False)
    assert done.returncode == 1
    assert "experiments.mlp: model MLP" in done.stdout
    assert "3 channels" in done.stdout
    assert "Let it take input_shape instead" in done.stdout


@pytest.mark.extended
def test_a_search_on_color_images_in_packs(colors):
    (colors.folder / "study.yaml").write_text(SEARCH)
    colors.snakemake(config="study.yaml")
    assert (colors.results / "sweep.csv").is_file()
    with (colors.results / "report.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["experiment"] == "searched"]
    assert [float(row["test_accuracy"]) for row in rows] == [1.0, 1.0]
    done = colors.script("reproduce", "--configfile", "study.yaml", "--run", "all", "--exact")
    assert "reproduced bit for bit" in done.stdout


@pytest.mark.extended
def test_the_solar_cells(project):
    """The three lines of docs/data.md, on two epochs and one network."""
    run = {"check": True, "cwd": project.folder, "capture_output": True}
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", "results"]
    subprocess.run([*pip, "elpv-dataset==1.0.0.post1"], **run)
    wheel = "results/elpv_dataset-1.0.0.post1-py3-none-any.whl"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, "results/elpv"], **run)
    config = project.folder / "config/examples/solar-cells.yaml"
    config.write_text(config.read_text().replace("epochs: 8", "epochs: 1"))
    done = project.run(
        BIN / "snakemake", "--profile", "profiles/local", "--configfile", config,
        "--config", "experiments={mlp: {model: {name: MLP}}}",
    )  # fmt: skip
    text = (project.folder / "docs/data.md").read_text()
    said = re.search(r"```text\n(solar-cells: .*?)```", text, flags=re.DOTALL)[1]
    assert said in done.stdout
    audit = json.loads(
        (project.folder / "results/solar-cells/data/solar-cells.audit.json").read_text()
    )
    assert audit["largest_class"] == ["functional", pytest.approx(302 / 445)]


@pytest.mark.extended
@pytest.mark.skipif(not shutil.which("apt-get"), reason="the icons are a package of Debian")
def test_icons_of_a_desktop(project):
    """Real files, with transparency, of several sizes, and the same image in several classes."""
    run = {"check": True, "cwd": project.folder, "capture_output": True}
    subprocess.run(["apt-get", "download", "oxygen-icon-theme"], **run)
    (package,) = project.folder.glob("oxygen-icon-theme_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, "icons"], **run)
    entry = "  folder: icons/usr/share/icons/oxygen/base/32x32\n  test_share: 0.2\n"
    entry += "  image_size: [32, 32]\n"
    write(project, entry)
    done = project.snakemake(config="study.yaml", check=False)
    assert "177 training images are in the test set, too" in done.stdout
    write(project, f"{entry}  duplicates: drop\n")
    project.snakemake(config="study.yaml")
    page = (project.results / "report.html").read_text()
    assert "mimetypes" in page
