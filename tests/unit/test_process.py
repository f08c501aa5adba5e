"""What makes a training process faster: it can be turned off, and it changes no number."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from lib.running import process

TRAIN = """
import sys

sys.path.insert(0, "scripts")
import torch

from lib.running import process

process.prepare()
weight = torch.ones(3, requires_grad=True)
optimizer = torch.optim.Adadelta([weight])
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
weight.sum().backward()
optimizer.step()
scheduler.step()
optimizer.load_state_dict(optimizer.state_dict())
optimizer.zero_grad()
assert not any(name.startswith("torch._dynamo.") for name in sys.modules)
"""

COMPILE = """
double = torch.compile(lambda x: 2 * x, backend="eager")
assert double(torch.ones(2)).tolist() == [2, 2]
assert "torch._dynamo.eval_frame" in sys.modules
print("compiled")
"""


def train(data, output, model, *python_options, **environment):
    command = [sys.executable, *python_options, "scripts/train.py", "--data", data]
    command += ["--output", output, "--set", f"model.name={model}", "epochs=1", "shuffle=true"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return done


def test_no_compiler_is_imported_in_a_whole_training(small_data, tmp_path):
    imported = train(small_data, tmp_path, "MLP", "-X", "importtime").stderr
    assert "torch.optim.adadelta" in imported
    assert "torch._dynamo." not in imported


@pytest.mark.extended
@pytest.mark.parametrize("model", ["MLP", "CNN"])
def test_without_it_the_bytes_are_the_same(small_data, tmp_path, model):
    train(small_data, tmp_path / "fast", model)
    plain = train(small_data, tmp_path / "plain", model, "-X", "importtime", **{process.PLAIN: "1"})
    assert "torch._dynamo." in plain.stderr  # it really was off
    fast, plain = (tmp_path / name / "model.safetensors" for name in ("fast", "plain"))
    assert fast.read_bytes() == plain.read_bytes()


def test_training_does_without_the_compiler_and_a_model_may_still_use_it():
    command = [sys.executable, "-c", TRAIN + COMPILE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "compiled\n", done.stderr


def test_a_torch_without_the_private_module_is_named(monkeypatch):
    name = "torch._dynamo_that_is_gone"
    stand_in = process.CompilerOnDemand(name)
    monkeypatch.setitem(sys.modules, name, stand_in)
    with pytest.raises(ImportError, match=r"process\.py was written for torch 2\.14.*=1"):
        _ = stand_in.eval_frame
