"""How a model is found by its name: in one file, the only one that is imported."""

import pytest
import torch
from own_models import net, own_model

import models
from lib.core.errors import UserError
from lib.core.signatures import signature, with_defaults
from models.layers import OUTPUTS


def test_the_names_of_outputs():
    assert tuple(OUTPUTS) == models.OUTPUTS


@pytest.fixture
def folder(tmp_path):
    with own_model(tmp_path, net()):
        yield tmp_path


BROKEN = {
    "half.py": b"class Half(\n",
    ".#net.py": b"\xff\xfe",
    "latin.py": "# caf\xe9".encode("latin-1"),
    "zero.py": b"x = 1\0",
    "deep.py": b"(" * 5000,
    "with space.py": b"(",
}


@pytest.mark.parametrize(("name", "content"), BROKEN.items(), ids=BROKEN.keys())
def test_files_of_other_models_do_not_matter(folder, name, content):
    (folder / name).write_bytes(content)
    assert models.output_of({"name": "Net"}) == "logits"
    models.build({"name": "Net"}, (1, 4, 4), 3)
    assert models.available() == ["Net"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Half", "half.py, line 1: "),
        ("Latin", "latin.py, line 1: the file is not UTF-8"),
        ("Zero", "zero.py"),
        ("Deep", "deep.py"),
    ],
)
def test_the_file_itself_is_named(folder, name, message):
    for file, content in BROKEN.items():
        (folder / file).write_bytes(content)
    with pytest.raises(UserError) as failure:
        models.file_of(name)
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Ned", "no 'Ned' in scripts/models; did you mean 'Net'?"),
        ("NET", "net.py defines no class of that name; valid are: Net"),
        ("../net", "no '../net' in scripts/models"),
        ("MyNet", "rename MyNet.py to mynet.py"),
    ],
)
def test_a_name_that_is_not_there(folder, name, message):
    (folder / "MyNet.py").write_text(net().replace("Net", "MyNet"))
    with pytest.raises(UserError) as failure:
        models.build({"name": name}, (1, 4, 4), 3)
    assert message in str(failure.value)


@pytest.mark.parametrize("name", ["MLP", "CNN"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 31)])
def test_the_models_take_any_shape(name, shape):
    model = models.build({"name": name}, shape, 7)
    assert model(torch.rand(2, *shape)).shape == (2, 7)


def test_a_model_that_takes_image_size_is_for_one_channel(folder):
    (folder / "net.py").write_text(net().replace("input_shape", "image_size"))
    models.build({"name": "Net"}, (1, 4, 4), 3)
    with pytest.raises(UserError, match=r"Net: .*3 channels.*Let it take input_shape instead"):
        models.build({"name": "Net"}, (3, 4, 4), 3)


OUTPUT = {
    "assigned": ('output = "softmax"', "softmax"),
    "annotated": ('output: str = "softmax"', "softmax"),
    "two names": ('kind = output = "softmax"', "softmax"),
    "said twice": ('output = "logits"\noutput = "softmax"', "softmax"),
    "not said": ("", None),
    "only annotated": ("output: str", None),
    "computed": ('output = "soft" + "max"', "softmax"),
    "a method": ("def output(self): pass", None),
}


@pytest.mark.parametrize(("line", "output"), OUTPUT.values(), ids=OUTPUT.keys())
def test_what_the_class_says_of_its_output(tmp_path, line, output):
    source = net(more=line).replace('    output = "logits"\n', "")
    with own_model(tmp_path, source):
        assert models.output_of({"name": "Net"}) == output


@pytest.mark.parametrize("line", ['output = "logit"', "output = 3"])
def test_an_output_that_is_none(tmp_path, line):
    with own_model(tmp_path, net(more=line)), pytest.raises(UserError) as failure:
        models.output_of({"name": "Net"})
    assert "the output" in str(failure.value)
    assert "log_softmax, softmax, logits" in str(failure.value)


HEIR = """
class Base(nn.Module):
    output = "softmax"

    def __init__(self, image_size, num_classes, width=3):
        super().__init__()


class Net(Base):
    pass
"""


def test_what_a_base_class_says(tmp_path):
    with own_model(tmp_path, "from torch import nn\n" + HEIR):
        assert models.output_of({"name": "Net"}) == "softmax"
        assert signature("models.net", "Net").names == ["image_size", "num_classes", "width"]


@pytest.mark.parametrize(
    "source",
    [
        "from models.mlp import MLP\n\n\nclass Net(MLP):\n    pass\n",
        "from models.mlp import MLP as Net0\n\n\nclass Net(Net0):\n    pass\n",
        "from models.mlp import MLP\n\n\nclass A(MLP):\n    pass\n\n\nclass Net(A):\n    pass\n",
    ],
)
def test_what_a_base_class_of_another_file_says(tmp_path, source):
    with own_model(tmp_path, source):
        assert models.output_of({"name": "Net"}) == "log_softmax"
        assert "hidden" in signature("models.net", "Net").names


def test_a_base_class_outside_the_project(tmp_path):
    source = "import torchvision\n\n\nclass Net(torchvision.models.VGG):\n    output = 'logits'\n"
    with own_model(tmp_path, source):
        found = signature("models.net", "Net")
    assert found.names == ["features", "num_classes", "init_weights", "dropout"]
    assert found.required == ["features"]
    assert found.defaults == {"num_classes": 1000, "init_weights": True, "dropout": 0.5}
    assert not found.open_ended


@pytest.mark.parametrize("arguments", ["self, *args, **kwargs", None])
def test_a_constructor_that_takes_anything(tmp_path, arguments):
    init = f"def __init__({arguments}): pass" if arguments else "pass"
    source = f"from torch import nn\n\n\nclass Net(nn.Module):\n    {init}\n"
    with own_model(tmp_path, source):
        found = signature("models.net", "Net")
    assert found.open_ended
    assert not found.names


def test_a_function_of_torchvision():
    found = signature("torchvision.models", "resnet18")
    assert found.open_ended
    assert found.defaults == {"weights": None, "progress": True}


def test_defaults_that_no_config_can_have_are_left_out(tmp_path):
    defaults = "a=(1, 2), b=nn.ReLU, c=float('inf'), d=2**7, e=None"
    source = f"from torch import nn\n\n\nclass Net:\n    def __init__(self, {defaults}): pass\n"
    with own_model(tmp_path, source):
        found = signature("models.net", "Net")
    assert found.defaults == {"a": [1, 2], "d": 128, "e": None}
    assert not found.required


def test_a_class_that_inherits_from_itself(tmp_path):
    with own_model(tmp_path, "class Net(Net):\n    pass\n") as path:
        with pytest.raises(UserError) as failure:
            models.output_of({"name": "Net"})
        assert f"model Net: {path}, line 1: NameError" in str(failure.value)


def test_defaults_that_are_written_out_are_the_same():
    short, long = {"name": "MLP"}, {"name": "MLP", "hidden": 128, "activation": "relu"}
    assert with_defaults("model", short) == with_defaults("model", long)
    assert with_defaults("model", {"name": "MLP", "hidden": 64})["hidden"] == 64
    short, long = {"name": "Adam"}, {"name": "Adam", "betas": [0.9, 0.999], "amsgrad": False}
    assert with_defaults("optimizer", short) == with_defaults("optimizer", long)
    step = {"name": "StepLR", "step_size": 1}
    assert with_defaults("scheduler", step) == step | {"gamma": 0.1, "every": "epoch"}
    unknown = {"name": "Nowhere", "x": 1}
    for kind in ("model", "optimizer", "scheduler"):
        assert with_defaults(kind, unknown) == unknown
