"""The stand-in for torch's compiler: light, and gone when the compiler is wanted."""

import subprocess
import sys

from conftest import ROOT

TRAIN = """
import sys

sys.path.insert(0, "scripts")
import torch

import light_dynamo

light_dynamo.install()
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


def test_no_compiler_is_imported_in_a_whole_training(small_data, tmp_path):
    command = [sys.executable, "-X", "importtime", "scripts/train.py", "--data", small_data]
    command += ["--output", tmp_path, "--model", "MLP", "--epochs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (tmp_path / "run.json").exists(), done.stderr[-1000:]
    assert "torch.optim.adadelta" in done.stderr
    assert "torch._dynamo." not in done.stderr


def test_training_does_without_the_compiler_and_a_model_may_still_use_it():
    command = [sys.executable, "-c", TRAIN + COMPILE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "compiled\n", done.stderr
