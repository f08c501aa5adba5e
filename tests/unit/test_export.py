"""The networks of the project in PyTorch's own tools, and without the project."""

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import ROOT
from PIL import Image

import models
from lib.data import prepared

DOCS = (ROOT / "docs" / "models.md").read_text()
BLOCKS = re.findall("```python\n(.*?)```", DOCS, re.DOTALL)
BATCH = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
NETWORKS = [
    ({"name": name, "activation": activation}, channels)
    for name in models.available()
    for activation in ("relu", "gelu")
    for channels in (1, 3)
]


@pytest.fixture(params=NETWORKS, ids=str)
def network(request):
    """A network in evaluation mode, and two batches of images of other sizes."""
    model, channels = request.param
    torch.manual_seed(0)
    made = models.build(model, (channels, 14, 12), 5).eval()
    return made, torch.randn(3, channels, 14, 12), torch.randn(7, channels, 14, 12)


@torch.no_grad()
def test_it_can_be_exported(network):
    made, example, images = network
    exported = torch.export.export(made, (example,), **BATCH).module()
    torch.testing.assert_close(exported(images), made(images), rtol=1e-6, atol=1e-6)


@pytest.mark.extended
@torch.no_grad()
def test_onnx_computes_the_same(network, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    made, example, images = network
    path = tmp_path / "network.onnx"
    torch.onnx.export(made, (example,), path, dynamo=True, verbose=False, **BATCH)
    session = onnxruntime.InferenceSession(path)
    (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), made(images), rtol=1e-6, atol=1e-6)


@pytest.mark.extended
@torch.no_grad()
def test_it_can_be_compiled(network):
    made, _, images = network
    torch.testing.assert_close(torch.compile(made)(images), made(images), rtol=1e-6, atol=1e-6)


@pytest.fixture
def colleague(finished, tmp_path):
    """A folder with what the docs say that somebody without the project needs."""
    folder = tmp_path / "colleague"
    (folder / "models").mkdir(parents=True)
    for name in ("model.safetensors", "run.json"):
        shutil.copy(finished.run_folder("cnn") / name, folder)
    for name in ("cnn.py", "layers.py"):
        shutil.copy(ROOT / "scripts" / "models" / name, folder / "models")
    return folder


def run_lines(folder, image, *blocks):
    """Run blocks of the docs on an image; return what they print."""
    Image.fromarray(image.numpy()).save(folder / "new.png")
    (folder / "classify.py").write_text("\n".join(blocks))
    command = [sys.executable, "classify.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_lines_of_the_docs_classify_without_the_project(colleague, finished, small_data):
    images = prepared.load(small_data).test_images[:3, 0]
    predictions = pd.read_csv(finished.run_folder("cnn") / "predictions.csv.gz")["prediction"]
    check = "import sys; print([each for each in sys.modules if each.split('.')[0] == 'lib'])"
    assert len(BLOCKS[0].strip().splitlines()) <= 12
    for image, answer in zip(images, predictions, strict=False):  # classes are digits
        assert run_lines(colleague, image, BLOCKS[0], check) == [str(answer), "[]"]


@pytest.mark.extended
def test_the_lines_of_the_docs_export(colleague, small_data):
    onnxruntime = pytest.importorskip("onnxruntime")
    image = prepared.load(small_data).test_images[0, 0]
    save = (
        "torch.save(output.detach(), 'output.pt'); torch.save((images / 255 - mean) / std, 'in.pt')"
    )
    run_lines(colleague, image, BLOCKS[0], save, BLOCKS[1])
    images, output = (torch.load(colleague / name) for name in ("in.pt", "output.pt"))
    session = onnxruntime.InferenceSession(colleague / "cnn.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), output, rtol=1e-6, atol=1e-6)
    found = torch.export.load(colleague / "cnn.pt2").module()(images)
    torch.testing.assert_close(found, output, rtol=1e-6, atol=1e-6)
