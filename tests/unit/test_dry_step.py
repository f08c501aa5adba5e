"""The dry step: what can be known of a model before it is trained is said before that."""

import random

import numpy as np
import pytest
import torch
from own_models import net, own_model

from lib.core.errors import UserError
from lib.core.settings import Settings
from lib.running.dry_step import dry_step
from lib.training.state import random_state, seed_everything

SETTINGS = Settings({"name": "Net"}, loss="cross_entropy")


def try_model(folder, source, train_size=100, test_size=100, **settings):
    with own_model(folder, source):
        keys = SETTINGS.as_dict() | settings
        dry_step(Settings(**keys), (1, 4, 4), 3, train_size, [100, test_size], torch.device("cpu"))


GOOD = {
    "plain": net(),
    "BatchNorm": net("self.norm = nn.BatchNorm1d(16)", "x = self.norm(x)"),
    "dropout": net("self.drop = nn.Dropout(0.5)", "x = self.drop(x)"),
    "random in evaluation mode": net(forward="x = x + torch.rand(1) * np.random.rand()"),
    "in place": net(forward="images.clamp_(0, 0.5)"),
    "lazy": net("self.lazy = nn.LazyLinear(16)", "x = self.lazy(x)"),
    "lazy BatchNorm": net("self.lazy = nn.LazyBatchNorm1d()", "x = self.lazy(x)"),
    "partly frozen": net("self.fc.bias.requires_grad = False"),
    "tied": net("self.other = self.fc", returns="self.fc(x) + self.other(x)"),
    "not contiguous": net("self.w = nn.Parameter(torch.rand(3, 16).t())", returns="x @ self.w"),
    "expanded buffer": net("self.register_buffer('b', torch.ones(1).expand(16))", "x = x * self.b"),
    "complex buffer": net(
        "self.register_buffer('b', torch.ones(16, dtype=torch.complex128))",
        "x = x * self.b.real.float()",
    ),
    "extra state": net(
        "self.count = 0",
        "self.count += self.training",
        "self.fc(x) + self.count",
        "def get_extra_state(self): return {'count': self.count, 'odd': (1, torch.ones(2))}\n"
        "def set_extra_state(self, state): self.count = state['count']",
    ),
    "-inf for a class": net(returns="self.fc(x) + torch.tensor([0, 0, -float('inf')])[[0, 1, 0]]"),
}


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD.keys())
def test_a_model_that_works(tmp_path, source):
    try_model(tmp_path, source)


BAD = {
    "tuple": (net(returns="(self.fc(x), x)"), ["returns a tuple", "[2, 3]"]),
    "too many classes": (net(returns="self.fc(x).repeat(1, 2)"), ["float32 [2, 6]", "3 classes"]),
    "too few classes": (net(returns="self.fc(x)[:, :2]"), ["float32 [2, 2]"]),
    "no batch": (net(returns="self.fc(x)[0]"), ["float32 [3]"]),
    "integers": (net(returns="self.fc(x).argmax(1, True).expand(2, 3)"), ["int64 [2, 3]"]),
    "NaN": (net(returns="self.fc(x) * float('nan')"), ["loss of its first step is nan"]),
    "NaN in evaluation mode": (
        net(returns="self.fc(x) * (1 if self.training else float('nan'))"),
        ["evaluation mode", "not finite for 2 of 2"],
    ),
    "float64": (net("self.double()"), ["net.py, line 20", "dtype"]),
    "detached": (net(returns="self.fc(x).detach()"), ["depends on none of its parameters"]),
    "frozen": (net("self.requires_grad_(False)"), ["none of its parameters requires"]),
    "no parameters": (net("del self.fc", returns="x[:, :3]"), ["none of its parameters"]),
    "a bug in forward": (net(forward="1 / 0"), ["net.py, line 19: ZeroDivisionError: division"]),
    "a bug in the constructor": (net("self.fcc"), ["net.py, line 15: AttributeError", "'fcc'"]),
    "in place on a weight": (
        net(forward="self.fc.weight.mul_(2)"), ["net.py, line 19: RuntimeError", "in-place"],
    ),
    "backward": (
        net(forward="y = self.fc(x).sigmoid(); z = y * y; y.mul_(2)", returns="z"),
        ["model Net", "inplace operation"],
    ),
    "an import": ("import nosuch\n" + net(), ["net.py, line 1: ModuleNotFoundError", "nosuch"]),
    "no module": (
        "class Net:\n    def __init__(self, image_size, num_classes): pass\n",
        ["Net", "not a torch.nn.Module"],
    ),
    "missing argument": (
        net().replace("num_classes):", "num_classes, width):"), ["missing", "'width'"],
    ),
    "unused lazy layer": (net("self.lazy = nn.LazyLinear(3)"), ["lazy.weight", "not reach"]),
    "expanded parameter": (
        net("self.p = nn.Parameter(torch.ones(1).expand(16))", "x = x + self.p"),
        ["the parameter p", "expand", "clone"],
    ),
    "sparse buffer": (
        net("self.register_buffer('s', torch.eye(3).to_sparse())"), ["s cannot be saved", "sparse"],
    ),
    "extra state of bytes": (
        net(more="def get_extra_state(self): return b'1'\ndef set_extra_state(self, s): pass"),
        ["_extra_state cannot be saved", "bytes"],
    ),
    "extra state of a class": (
        net(more="def get_extra_state(self): return nn.ReLU()\ndef set_extra_state(self, s): pass"),
        ["_extra_state cannot be saved", "ReLU"],
    ),
    "state that is not saved": (
        net("self.scale = 1.0", "self.scale += self.training", "self.fc(x) * self.scale"),
        ["loaded from its saved weights", "get_extra_state"],
    ),
    "random buffer that is not saved": (
        net("self.register_buffer('b', torch.rand(16), persistent=False)", "x = x * self.b"),
        ["loaded from its saved weights", "persistent"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("source", "words"), BAD.values(), ids=BAD.keys())
def test_a_model_that_fails(tmp_path, source, words):
    with pytest.raises(UserError) as failure:
        try_model(tmp_path, source)
    for word in ["model Net", *words]:
        assert word in str(failure.value)


def test_extra_state_that_a_checkpoint_cannot_contain(tmp_path):
    state = "def get_extra_state(self): return np.float64(1)\ndef set_extra_state(self, s): pass"
    with pytest.raises(UserError, match="a checkpoint cannot contain numpy"):
        try_model(tmp_path, net(more=state))


SGD = {"name": "SGD", "lr": 0.1}
WRONG = {
    "huge lr": (
        {"optimizer": {"name": "Adam", "lr": 1e308}},
        ["optimizer: Adam with {'lr': 1e+308}"],
    ),
    "betas": ({"optimizer": {"name": "Adam", "betas": [0.9]}}, ["optimizer: Adam with", "[0.9]"]),
    "a word": ({"optimizer": {"name": "SGD", "lr": "x"}}, ["optimizer: SGD with {'lr': 'x'}:"]),
    "fused and foreach": (
        {"optimizer": SGD | {"fused": True, "foreach": True}},
        ["optimizer: SGD with", "fused", "foreach"],
    ),
    "step_size": ({"scheduler": {"name": "StepLR", "step_size": 0}}, ["scheduler: StepLR", "Zero"]),
    "T_max": ({"scheduler": {"name": "CosineAnnealingLR", "T_max": 0}}, ["scheduler: Cosine"]),
    "gamma": (
        {"scheduler": {"name": "ExponentialLR", "gamma": "x"}},
        ["scheduler: ExponentialLR with {'gamma': 'x'}"],
    ),
    "rate that overflows": (
        {"scheduler": {"name": "ExponentialLR", "gamma": 1e200}, "epochs": 3},
        ["scheduler: ExponentialLR", "the learning rate is inf after epoch 2"],
    ),
    "one image in the last batch": (
        {"train_size": 65},
        ["model Net", "Expected more than 1 value per channel"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "words"), WRONG.values(), ids=WRONG.keys())
def test_settings_that_fail(tmp_path, settings, words):
    with pytest.raises(UserError) as failure:
        try_model(tmp_path, GOOD["BatchNorm"], **settings)
    for word in words:
        assert word in str(failure.value)


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_the_state_of_the_optimizer_may_be_sparse(tmp_path, momentum):
    embedding = "self.e = nn.Embedding(1, 16, sparse=True)"
    source = net(embedding, "x = x + self.e(torch.zeros(len(x), dtype=torch.long))")
    try_model(tmp_path, source, optimizer=SGD | {"momentum": momentum})


def test_one_image_in_the_last_batch_of_an_evaluation(tmp_path):
    source = net("self.norm = nn.BatchNorm1d(16, track_running_stats=False)", "x = self.norm(x)")
    with pytest.raises(UserError, match="Expected more than 1 value per channel"):
        try_model(tmp_path, source, test_size=1001)


def numbers():
    return torch.rand(2).tolist(), np.random.rand(), random.random()  # noqa: S311


def test_it_leaves_the_random_numbers_alone(tmp_path):
    seed_everything(5)
    before = numbers()
    seed_everything(5)
    try_model(tmp_path, GOOD["random in evaluation mode"])
    assert numbers() == before


def test_it_leaves_the_random_numbers_alone_when_it_fails(tmp_path):
    before = random_state()
    with pytest.raises(UserError):
        try_model(tmp_path, BAD["NaN"][0])
    assert torch.equal(random_state()["torch"], before["torch"])


def check(project, config):
    (project.folder / "mine.yaml").write_text(config)
    return project.script(
        "check", "--configfile", "mine.yaml", check=False, env={"PATH": ""}
    ).stdout


def test_check_reports_models_and_slurm_together(project):
    (project.folder / "scripts/models/net.py").write_text(net(returns="self.fc(x)[:, :2]"))
    printed = check(
        project,
        """
        dataset: MNIST-small
        datasets_file: tests/data/datasets.yaml
        experiments:
          good: {model: {name: MLP}}
          bad: {model: {name: Net}, loss: cross_entropy}
        """,
    )
    assert "good: MLP can be trained" in printed
    assert "experiments.bad: model Net: forward returns float32 [2, 2]" in printed
    assert "sbatch is not on the PATH" in printed
    assert "Traceback" not in printed


def test_a_training_takes_it_first(project, small_data):
    (project.folder / "scripts/models/net.py").write_text(net(returns="self.fc(x)[:, :2]"))
    command = ("--set", "model.name=Net", "loss=cross_entropy", "--output", "out")
    done = project.script("train", "--data", small_data, *command, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("error: model Net: forward returns float32 [2, 2]")
