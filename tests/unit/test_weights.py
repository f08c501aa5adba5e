"""Weights of every kind come back from their file, and what cannot be saved is named."""

import io

import pytest
import torch
from own_models import net, own_model
from safetensors import safe_open

import models
from lib.core.errors import UserError
from lib.training.checkpoint import deserialize, serialize
from lib.training.weights import load_state, load_weights, save_weights

KINDS = {
    "tied": net("self.other = nn.Linear(16, 3)\nself.other.weight = self.fc.weight"),
    "shared by slices": net(
        "big = torch.rand(32)\nself.register_buffer('a', big[:16])\nself.register_buffer('b', big)"
    ),
    "not contiguous": net("self.w = nn.Parameter(torch.rand(3, 16).t())"),
    "channels last": net(
        "self.conv = nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)"
    ),
    "expanded": net("self.register_buffer('b', torch.rand(1).expand(4))"),
    "complex": net("self.register_buffer('b', torch.rand(4, dtype=torch.complex64))"),
    "complex128": net("self.register_buffer('b', torch.rand(4, dtype=torch.complex128))"),
    "conjugated": net("self.register_buffer('b', torch.rand(4, dtype=torch.complex64).conj())"),
    "empty": net("self.register_buffer('b', torch.rand(0, 3))"),
    "of many types": net(
        "for name in 'float64 float16 bfloat16 int64 int8 uint8 bool'.split():\n"
        "    self.register_buffer('b_' + name, torch.ones(3).to(getattr(torch, name)))"
    ),
    "extra state": net(
        "self.extra = {'seen': random.random(), 2: [None, True, ('a', torch.rand(2))]}",
        more="def get_extra_state(self): return self.extra\n"
        "def set_extra_state(self, state): self.extra = state",
    ),
    "extra state that is a tensor": net(
        "self.extra = torch.rand(3)",
        more="def get_extra_state(self): return self.extra\n"
        "def set_extra_state(self, state): self.extra = state",
    ),
}  # fmt: skip


def new():
    return models.build({"name": "Net"}, (1, 4, 4), 3)


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_equal(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple):
        for mine, yours in zip(one, other, strict=True):
            assert_equal(mine, yours)
    else:
        assert one == other


@pytest.mark.parametrize("source", KINDS.values(), ids=KINDS.keys())
def test_weights_come_back(tmp_path, source):
    with own_model(tmp_path, source):
        model, other = new(), new()
        save_weights(model, tmp_path / "file")
        load_weights(other, tmp_path / "file")
    assert_equal(dict(model.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("source", KINDS.values(), ids=KINDS.keys())
def test_a_checkpoint_holds_them_too(tmp_path, source):
    with own_model(tmp_path, source):
        model, other = new(), new()
    load_state(other, deserialize(io.BytesIO(serialize(model.state_dict()))))
    assert_equal(dict(model.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("name", ["MLP", "CNN"])
def test_the_lessons_networks_are_plain_tensors(tmp_path, name):
    model = models.build({"name": name}, (1, 28, 28), 10)
    save_weights(model, tmp_path / "file")
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() is None
        assert set(file.keys()) == set(model.state_dict())


def test_tied_weights_stay_tied(tmp_path):
    with own_model(tmp_path, KINDS["tied"]):
        model = new()
        save_weights(model, tmp_path / "file")
        load_weights(model, tmp_path / "file")
    assert model.fc.weight is model.other.weight


def test_the_weights_of_another_model(tmp_path):
    save_weights(models.build({"name": "MLP", "hidden": 3}, (1, 28, 28), 10), tmp_path / "file")
    with pytest.raises(UserError, match="holds the weights of a different model than MLP"):
        load_weights(models.build({"name": "MLP"}, (1, 28, 28), 10), tmp_path / "file")


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "file").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"cannot read .*file"):
        load_weights(models.build({"name": "MLP"}, (1, 28, 28), 10), tmp_path / "file")
