"""Training: the lesson's numbers to the last bit, every recipe, and clear ends where it fails."""

import csv
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, cases, forked
from own_models import net, own_model
from safetensors.torch import load_file

import models
from lib.core import checked_settings, command_line
from lib.core.errors import UserError
from lib.core.settings import LOSSES, OPTIMIZERS, SCHEDULERS, Settings, loss_output_mismatch, words
from lib.data.batches import Split
from lib.running import run_results
from lib.running.lease import Lease
from lib.running.progress import Progress
from lib.training import loop, metrics, recipe
from lib.training.checkpoint import Checkpoints
from lib.training.state import Diverged, seed_everything


def run(small_data, output, *options, check=True, **keywords):
    """Run the script in a forked process."""
    done = subprocess.run(
        forked("train", "--data", small_data, "--output", output, *options),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        **keywords,
    )
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def history(folder) -> list[dict]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def lesson(root: Path, output: Path, network: str, *options) -> list[dict]:
    """Run the lesson's plain script; return what it prints, one row per epoch."""
    command = [sys.executable, "tests/lesson.py", network, "--root", root, "--output", output]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_same(run_folder, rows, weights):
    ours = history(run_folder)
    assert [float(row["loss"]) for row in ours] == [row["loss"] for row in rows]
    assert [float(row["accuracy"]) for row in ours] == [
        row["correct"] / row["size"] for row in rows
    ]
    ours, theirs = load_file(run_folder / "model.safetensors"), load_file(weights)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.fixture(scope="module")
def lesson_root(finished_once, tmp_path_factory):
    """The small data set where torchvision's MNIST looks for it."""
    root = tmp_path_factory.mktemp("lesson")
    shutil.copytree(finished_once.results / "data" / "MNIST-small" / "raw", root / "MNIST" / "raw")
    return root


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_the_workflow_has_the_lessons_bits(finished_once, lesson_root, tmp_path, network):
    rows = lesson(lesson_root, tmp_path / "weights", network, "--epochs", "2")
    assert_same(finished_once.run_folder(network), rows, tmp_path / "weights")


@pytest.mark.parametrize("network", cases(["mlp", "cnn"], "mlp"))
def test_shuffled_batches_are_a_dataloaders(small_data, lesson_root, tmp_path, network):
    rows = lesson(lesson_root, tmp_path / "weights", network, "--epochs", "1", "--shuffle")
    run(
        small_data,
        tmp_path / "out",
        "--set",
        f"model.name={network.upper()}",
        "epochs=1",
        "shuffle=true",
    )
    assert_same(tmp_path / "out", rows, tmp_path / "weights")


def test_two_runs_are_the_same_bytes(finished_once, small_data, tmp_path):
    run(small_data, tmp_path / "out", "--set", "model.name=CNN", "epochs=2")
    once = finished_once.run_folder("cnn")
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (once / "model.safetensors").read_bytes()
    for ours, theirs in zip(history(tmp_path / "out"), history(once), strict=True):
        for column in set(ours) - {"train_seconds", "eval_seconds"}:
            assert ours[column] == theirs[column]


def test_another_seed_is_another_network(small_data, tmp_path):
    for seed in "12":
        run(small_data, tmp_path / seed, "--set", "model.name=MLP", "epochs=1", f"seed={seed}")
    weights = [(tmp_path / seed / "model.safetensors").read_bytes() for seed in "12"]
    assert weights[0] != weights[1]


def test_what_it_prints_and_writes(small_data, tmp_path):
    done = run(
        small_data,
        tmp_path,
        "--log-interval",
        "10",
        "--set",
        "model.name=MLP",
        "model.hidden=16",
        "epochs=2",
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "MLP: 12,730 parameters, on cpu"
    assert lines[1].startswith("Train Epoch: 1 [0/2000 (0%)]\tLoss: 2.")
    assert lines[2].startswith("Train Epoch: 1 [640/2000 (31%)]\tLoss: ")
    assert sum(line.startswith("Train Epoch: 2 ") for line in lines) == 4
    assert sum(line.startswith("Test set: Average loss: ") for line in lines) == 2
    assert done.stderr == ""  # no progress bar in a log file
    rows = history(tmp_path)
    assert list(rows[0]) == run_results.HISTORY
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["learning_rate"] for row in rows] == ["1.0", "0.7"]
    assert {row["split"] for row in rows} == {"test"}
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"]["model"] == {"name": "MLP", "hidden": 16}
    assert record["parameters"] == 12730
    assert (record["device_asked"], record["device"]) == ("cpu", "cpu")
    assert record["threads"] == 1
    assert record["peak_memory_mb"] > 100
    assert record["images_per_second"] == pytest.approx(4000 / record["train_seconds"])
    assert len(record["code_sha256"]) == len(record["data_sha256"]) == 64


@pytest.mark.parametrize("network", cases(["mlp", "cnn"], "mlp"))
def test_bf16_is_other_numbers_and_as_good(finished_once, small_data, tmp_path, network):
    run(
        small_data, tmp_path, "--set", f"model.name={network.upper()}", "epochs=2", "precision=bf16"
    )
    ours, exact = history(tmp_path), history(finished_once.run_folder(network))
    assert ours[-1]["train_loss"] != exact[-1]["train_loss"]
    accuracy = [float(rows[-1]["accuracy"]) for rows in (ours, exact)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.05)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"]["precision"] == "bf16"
    assert finished_once.record(network)["settings"]["precision"] == "fp32"
    tensors = load_file(tmp_path / "model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


IMPORTED = """
import train
from lib.core import code_digests

print(*code_digests.imported_files())
"""


def test_the_record_knows_the_code_it_ran():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env={"PYTHONPATH": str(ROOT / "scripts"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    names = {Path(path).name for path in done.stdout.split()}
    assert {"train.py", "recipe.py", "prepared.py", "metrics.py"} <= names
    assert "report.py" not in names


def test_a_terminal_shows_a_bar(small_data, tmp_path):
    if not shutil.which("script"):
        pytest.skip("needs script(1) for a terminal")
    command = f"stty rows 24 cols 80; {sys.executable} scripts/train.py --data {small_data}"
    command += f" --output {tmp_path} --set model.name=MLP epochs=1"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "epoch 1:" in done.stdout
    assert "image/s" in done.stdout


def test_the_validation_split_replaces_the_test_set(small_data, tmp_path):
    done = run(small_data, tmp_path, "--set", "model.name=MLP", "epochs=1", "validation_size=400")
    assert "Validation set: Average loss" in done.stdout
    assert "/400 (" in done.stdout
    assert "Test set" not in done.stdout
    assert {row["split"] for row in history(tmp_path)} == {"validation"}
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["train_size"], record["validation_size"]) == (1600, 400)


def test_parameter_counts_are_the_lessons():
    for name, count in {"MLP": 101_770, "CNN": 1_199_882}.items():
        model = models.build({"name": name}, (1, 28, 28), 10)
        assert sum(parameter.numel() for parameter in model.parameters()) == count


FITTING = [(loss, output) for loss, outputs in LOSSES.items() for output in outputs]


@pytest.mark.parametrize(
    ("loss", "output"),
    cases(
        {"-".join(pair): pair for pair in FITTING},
        "cross_entropy-logits",
        "binary_cross_entropy-softmax",
    ),
)
def test_every_loss_trains(small_data, tmp_path, loss, output):
    run(
        small_data, tmp_path, "--set", "model.name=MLP", f"model.output={output}", f"loss={loss}",
        "epochs=2", "optimizer.name=Adam", "optimizer.lr=0.01",
    )  # fmt: skip
    first, second = history(tmp_path)
    assert float(second["train_loss"]) < float(first["train_loss"])
    assert float(second["accuracy"]) > 0.7
    # Both are means on one scale, whatever the loss sums over.
    assert float(second["loss"]) == pytest.approx(float(second["train_loss"]), rel=0.6)


@pytest.mark.parametrize(("loss", "output"), sorted(
    set(itertools.product(LOSSES, ["log_softmax", "softmax", "logits"])) - set(FITTING)
))  # fmt: skip
def test_a_loss_that_does_not_fit(loss, output):
    problem = loss_output_mismatch(loss, output)
    assert loss in problem
    assert output in problem


SCHEDULER_ARGUMENTS = {
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1]},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "OneCycleLR": {"max_lr": 0.1, "cycle_momentum": False},
}


@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_and_scheduler_can_be_made(optimizer, scheduler):
    model = models.build({"name": "MLP", "hidden": 2}, (1, 4, 4), 2)
    made = recipe.make_optimizer({"name": optimizer, "lr": 0.1}, model.parameters())
    assert type(made).__name__ == optimizer
    if scheduler:
        arguments = SCHEDULER_ARGUMENTS.get(scheduler, {})
        steps = recipe.make_scheduler(Settings(scheduler={"name": scheduler, **arguments}), made, 5)
        assert type(steps).__name__ == scheduler
    else:
        assert recipe.make_scheduler(Settings(scheduler=None), made, 5) is None


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "sigmoid"])
@pytest.mark.parametrize("name", ["MLP", "CNN"])
def test_every_activation(name, activation):
    model = models.build({"name": name, "activation": activation}, (1, 28, 28), 10)
    model.eval()
    output = model(torch.zeros(2, 1, 28, 28))
    assert output.exp().sum(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.name=CNNN"], ["--set: model: there is no 'CNNN'", "did you mean 'CNN'"]),
        (["model.hidden=3"], ["--set: model: 'name' is a required property"]),
        (["model.name=MLP", "model.hiden=3"], ["no argument 'hiden'; did you mean 'hidden'"]),
        (["model.name=MLP", "model.activation=rely"], ["'rely'", "relu, tanh, gelu, sigmoid"]),
        (["model.name=MLP", "model.output=softmax"], ["nll_loss", "softmax", "log_softmax"]),
        (["model.name=MLP", "optimizer.name=Adem"], ["optimizer: 'Adem'", "'Adam'", "SGD"]),
        (["model.name=MLP", "optimizer.lr=-1"], ["optimizer.lr: -1", "minimum of 0"]),
        (["model.name=MLP", "lr"], ["'lr' is not KEY=VALUE"]),
        (["model.name=MLP", "=1"], ["'=1' is not KEY=VALUE"]),
        (["model.name=MLP", "scheduler.name=StepLR"], ["StepLR needs step_size"]),
        (["model.name=MLP", "scheduler.name=Cosine"], ["'Cosine'", "CosineAnnealingLR"]),
        (["model.name=MLP", "scheduler.evry=step"], ["no argument 'evry'", "'every'"]),
        (["model.name=MLP", "scheduler.every=batch"], ["'batch' is not known", "epoch, step"]),
        (
            ["model.name=MLP", "scheduler.name=OneCycleLR", "scheduler.total_steps=9"],
            ["no argument 'total_steps'", "OneCycleLR needs max_lr"],
        ),
        (
            [
                "model.name=MLP",
                "scheduler.name=OneCycleLR",
                "scheduler.max_lr=1",
                "warmup_epochs=1",
            ],
            ["warmup_epochs: OneCycleLR has a warmup of its own"],
        ),
        (["model.name=MLP", "loss=nl_loss"], ["loss: 'nl_loss' is not known", "'nll_loss'"]),
        (["model.name=MLP", "loss.weigth=balanced"], ["no argument 'weigth'", "'weight'"]),
        (["model.name=MLP", "loss.label_smoothing=0.1"], ["nll_loss has no argument"]),
        (["model.name=MLP", "loss.weight=equal"], ["loss.weight: 'equal'", "balanced"]),
        (["model.name=MLP", "loss.weight=[1,0]"], ["loss.weight.1: 0"]),
        (
            ["model.name=MLP", "loss.name=poisson_nll_loss", "loss.weight=balanced"],
            ["poisson_nll_loss has no argument 'weight': it takes none"],
        ),
        (["model.name=MLP", "sampling=balance"], ["sampling: 'balance'", "balanced"]),
        (["model.name=MLP", "ema=1"], ["ema: 1"]),
        (["model.name=MLP", "clip_norm=0"], ["clip_norm: 0"]),
        (["model.name=MLP", "keep=best"], ["keep: the best epoch is found", "validation_size"]),
        (["model.name=MLP", "patience=2"], ["patience", "set keep: best"]),
        (["model.name=MLP", "warmup_epochs=3"], ["warmup_epochs: 3 of 3 epochs leave none"]),
        (["model.name=MLP", "epochs=0"], ["epochs: 0", "minimum of 1"]),
        (["model.name=MLP", "epochs=2.0"], ["epochs: 2.0 is not of type integer"]),
        (["model.name=MLP", "epoch=1"], ["unknown key 'epoch'; did you mean 'epochs'"]),
        (["model.name=MLP", "optimzer.lr=1"], ["'optimzer'; did you mean 'optimizer'"]),
        (["model.name=MLP", "epochs.x=1"], ["epochs: {'x': 1} is not of type integer"]),
        (["model.name=MLP", "scheduler=null", "scheduler.gamma=1"], ["scheduler: 'name' is a req"]),
        (["model.name=MLP", "epochs=["], ["--set epochs, line 1: not valid YAML"]),
        (["model.name=MLP", "optimizer.lr=.nan"], ["--set optimizer.lr: ", "nan is not a finite"]),
        (["model.name=MLP", "validation_size=2000"], ["validation_size 2000", "2000 images"]),
        (["model.name=MLP", "loss=mse"], ["loss: 'mse' is not known", "nll_loss"]),
    ],
)
def test_bad_settings(small_data, tmp_path, settings, words):
    done = run(small_data, tmp_path / "out", "--set", *settings, check=False)
    assert done.returncode in (1, 2)
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_an_output_that_cannot_be(small_data, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(small_data, tmp_path / "file" / "out", "--set", "model.name=MLP", check=False)
    assert done.returncode == os.EX_TEMPFAIL
    assert (
        f"error: cannot write {tmp_path / 'file' / 'out' / 'lease.json'}: Not a dir" in done.stderr
    )


@pytest.mark.parametrize("waits", cases({"trains": False, "waits": True}, "trains"))
def test_a_reader_that_has_had_enough(small_data, tmp_path, waits):
    """Also while the training waits for another to end."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "scripts/train.py", "--data", small_data, "--set", "model.name=MLP"]
    streams = {"stdout": writer, "stderr": subprocess.PIPE}
    with Lease(tmp_path) if waits else nullcontext():
        done = subprocess.run([*command, "--output", tmp_path], cwd=ROOT, text=True, **streams)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_loss_that_turns_nan(small_data, tmp_path):
    diverging = ("--set", "model.name=MLP", "optimizer={name: SGD, lr: 1e30}")
    done = run(small_data, tmp_path / "out", *diverging, check=False)
    assert done.returncode == 1
    assert "error: the training loss is nan at epoch 1, step 2:" in done.stderr
    assert "learning rate" in done.stderr
    assert not (tmp_path / "out" / "model.safetensors").exists()


def splits(pixels=16):
    """A small data set in memory: training and test images, never to be changed."""
    generator = torch.Generator().manual_seed(0)
    shape = (40, 1, 4, pixels // 4)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels, scale = torch.arange(40) % 3, (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    return (
        Split("training", images[:30], labels[:30], *scale),
        Split("test", images[30:], labels[30:], *scale),
    )


def train_in_process(folder, source, **changes):
    """Train a user's own model on `splits()`; return the splits after it."""
    config = Settings({"name": "Net"}, loss="cross_entropy", batch_size=7, epochs=2)
    config = replace(config, evaluation_batch_size=4, **changes)
    training_set, test_set = splits()
    checkpoints = Checkpoints(folder / "checkpoint", {}, 1e9)
    with own_model(folder, source):
        seed_everything(config.seed)
        model = models.build(config.model, (1, 4, 4), 3)
        progress = Progress(config, len(training_set), len(test_set))
        loss = recipe.TrainingLoss(config.loss, 3, training_set.labels)
        loop.train(model, training_set, test_set, loss, config, checkpoints, progress)
    return training_set, test_set


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_model_that_changes_its_input_changes_no_data(tmp_path, shuffle):
    source = net(forward="images.clamp_(0.4, 0.5)")
    for after, before in zip(
        train_in_process(tmp_path, source, shuffle=shuffle), splits(), strict=True
    ):
        assert torch.equal(after.images, before.images)
        assert torch.equal(after.labels, before.labels)


def test_numpy_and_random_are_seeded(tmp_path):
    def numbers(seed):
        seed_everything(seed)
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: S311

    seeds = [0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    drawn = [numbers(seed) for seed in seeds]
    assert drawn == [numbers(seed) for seed in seeds]
    # torch itself takes the lower 32 bits on the CPU
    assert all(len({row[column] for row in drawn}) == len(seeds) for column in (1, 2))
    torch.manual_seed(1)
    assert torch.rand(1).item() == numbers(1)[0]
    with pytest.raises(UserError, match="65 bits"):
        seed_everything(2**64)


NAN_AFTER_TRAINING = "self.fc(x) * (1 if {} else float('nan'))"


def test_a_model_that_is_nan_in_evaluation_mode_is_to_blame(tmp_path):
    with pytest.raises(Diverged) as failure:
        train_in_process(tmp_path, net(returns=NAN_AFTER_TRAINING.format("self.training")))
    message = str(failure.value)
    assert "model Net: its output in evaluation mode is not finite for 10 of 10 images" in message
    assert "after epoch 1: in training mode it is finite" in message
    assert "learning rate" not in message


def test_a_true_class_of_probability_zero_is_not_blamed_on_the_learning_rate(tmp_path):
    zero = "self.fc(x) + (0 if self.training else torch.tensor([0, 0, -float('inf')]))"
    with pytest.raises(Diverged, match=r"the test loss is inf after epoch 1: .*the probability 0"):
        train_in_process(tmp_path, net(returns=zero))


def test_weights_that_overflow_in_the_last_step_are_to_blame(tmp_path):
    rate = {"optimizer": {"name": "SGD", "lr": 1e38}, "batch_size": 30}
    with pytest.raises(Diverged, match=r"after epoch 1: training has diverged; .*learning rate"):
        train_in_process(tmp_path, net(returns="self.fc(x * 1e4)"), **rate)


def test_a_model_that_fails_in_the_last_batch_is_named(tmp_path):
    with pytest.raises(UserError, match=r"model Net: .*net\.py, line 19: RuntimeError: shape"):
        train_in_process(tmp_path, net(forward="x = x.view(7, 16)"))


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        ("self.fc(x) if self.training else self.fc(x)[:, :2]", "returns float32 [4, 2], not"),
        ("self.fc(x) if self.training else self.fc(x).repeat(1, 2)", "returns float32 [4, 6]"),
        ("self.fc(x) if self.training else (self.fc(x),)", "returns a tuple, not"),
    ],
)
def test_an_output_of_the_wrong_shape_is_named(tmp_path, returns, words):
    with pytest.raises(UserError) as failure:
        train_in_process(tmp_path, net(returns=returns))
    assert words in str(failure.value)


def test_minus_infinity_is_a_probability_of_zero():
    metrics.check_output("Net", torch.tensor([[0.0, -torch.inf]]), 1, 2)
    for row in ([-torch.inf, -torch.inf], [0, torch.inf], [0, torch.nan]):
        with pytest.raises(metrics.NotFinite, match="1 of 1"):
            metrics.check_output("Net", torch.tensor([row], dtype=torch.float32), 1, 2)


def test_cuda_without_a_gpu_fails_and_auto_falls_back(small_data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run(small_data, tmp_path / "out", "--set", "model.name=MLP", "device=cuda", check=False)
    assert done.returncode == os.EX_UNAVAILABLE
    assert "device cuda: torch sees no GPU here" in done.stderr
    assert "nvidia-smi" in done.stderr
    run(small_data, tmp_path / "auto", "--set", "model.name=MLP", "device=auto", "epochs=1")
    record = json.loads((tmp_path / "auto" / "run.json").read_text())
    assert (record["device_asked"], record["device"]) == ("auto", "cpu")


def test_data_of_another_shape(tmp_path):
    path = tmp_path / "other.safetensors"
    from safetensors.torch import save_file

    save_file({"images": torch.zeros(3, 3)}, path)
    done = run(path, tmp_path / "out", "--set", "model.name=MLP", check=False)
    assert done.returncode == 1
    assert f"{path} is not a prepared data set" in done.stderr


def read(*options) -> Settings:
    """Return the settings that a command reads from options."""
    parser = command_line.parser("")
    checked_settings.add_arguments(parser)
    return checked_settings.from_arguments(parser.parse_args(options))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scheduler": None, "shuffle": True, "seed": 2**63 - 1},
        {"optimizer": {"name": "SGD", "lr": 1e-300, "nesterov": True, "foreach": None}},
        {"optimizer": {"name": "Adam", "betas": [0.9, 0.99], "eps": 1e22}},
        {"model": {"name": "Net", "odd": "it's; $(odd) {a}: [b] # c"}},
        {"model": {"name": "Net", "a": ["\u2028", "\x7f", "\U0001f600", "é\n"]}},
        {"model": {"name": "Net", "b": {"c": [1, "1", "1e3", "null", "Yes"]}}},
        {"model": {"name": "Net", "a": "true", "b": "Null", "c": "", "d": "~"}},
    ],
)
def test_settings_survive_the_way_through_the_shell(tmp_path, changes):
    settings = replace(Settings({"name": "Net"}, loss="cross_entropy"), **changes)
    source = net().replace("num_classes):", "num_classes, **arguments):")
    with own_model(tmp_path, source):
        assert read(*settings.options()) == settings


def test_the_name_of_a_component_replaces_it():
    optimizer = read("--set", "optimizer.lr=0.1", "model.name=MLP", "optimizer.name=SGD").optimizer
    assert optimizer == {"name": "SGD", "lr": 0.1}
    assert read("--set", "model.name=MLP", "optimizer.name=SGD").optimizer == {"name": "SGD"}
    changed = read("--set", "model.name=MLP", "scheduler.gamma=0.5")
    assert changed.scheduler == {"name": "StepLR", "step_size": 1, "gamma": 0.5}


def test_a_file_of_settings(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("model: {name: MLP, hidden: 8}\nepochs: 5\nseed: 7\n")
    given = read("--settings", str(file), "--set", "model.hidden=16", "epochs=2")
    assert given == Settings({"name": "MLP", "hidden": 16}, epochs=2, seed=7)
    file.write_text(json.dumps(given.as_dict()))
    assert read("--settings", str(file)) == given
    file.write_text("epoch: 5")
    with pytest.raises(UserError, match=r"settings.yaml and --set: unknown key 'epoch'; did you"):
        read("--settings", str(file), "--set", "model.name=MLP")
    file.write_text("- 5")
    with pytest.raises(UserError, match=r"settings.yaml: settings are a mapping"):
        read("--settings", str(file))


def test_the_help_has_every_setting(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    said = capsys.readouterr().out
    assert "\n  model.name=NAME\n" in said
    for name, value in Settings().as_dict().items():
        assert name == "model" or f"\n  {' '.join(words(name, value))}\n" in said


@pytest.mark.extended
def test_the_lessons_bits_on_all_of_mnist(finished_once, tmp_path):
    """The MLP on the 60,000 images: about a minute."""
    project = finished_once.copy(tmp_path / "full")
    config = "results_dir: full\ndata_dir: full/data\nexperiments: {mlp: {model: {name: MLP}}}"
    (project.folder / "full.yaml").write_text(config)
    project.snakemake(config="full.yaml")
    rows = lesson(project.folder / "full" / "data", tmp_path / "weights", "mlp")
    assert len(rows) == 3
    assert_same(project.folder / "full" / "runs" / "mlp" / "seed1", rows, tmp_path / "weights")
