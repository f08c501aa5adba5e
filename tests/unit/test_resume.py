"""A training that is stopped and resumed gives the bits of one that was not."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import PATIENCE, ROOT, cases, forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_models import net, own_model

import models
from lib.core.errors import UserError
from lib.core.layout import RunFiles
from lib.core.settings import OPTIMIZERS, SCHEDULERS, Settings
from lib.data import prepared
from lib.running.progress import Progress
from lib.training import graph, loop
from lib.training.checkpoint import Checkpoints, Stopped, deserialize, serialize
from lib.training.recipe import TrainingLoss, make_optimizer, make_scheduler
from lib.training.selection import Selection
from lib.training.state import Training, seed_everything

SETTINGS = Settings({"name": "CNN"}, batch_size=16, evaluation_batch_size=50, shuffle=True)
IDENTITY = {"settings": SETTINGS.as_dict()}
SIZE = 12  # pixels of a side of the images
STEPS = 8  # per epoch, of 120 images: the last batch is smaller
CHECKPOINT, PROGRESS = "checkpoint.pt", "progress.json"
TIMES = {"train_seconds", "eval_seconds"}


class Interrupting(Checkpoints):
    """Asks to stop after so many steps, as a signal would."""

    def __init__(self, folder, after):
        super().__init__(RunFiles(folder).checkpoint, IDENTITY, interval=1e9)
        self.left = after

    @property
    def save_due(self):
        self.left -= 1
        if self.left == 0:
            self.signal = signal.SIGTERM
        return super().save_due


@pytest.fixture(scope="module")
def splits(small_data):
    """The middle of the first images: a convolutional network trains on them quickly."""
    data = prepared.load(small_data)
    middle = (..., slice(14 - SIZE // 2, 14 + SIZE // 2), slice(14 - SIZE // 2, 14 + SIZE // 2))
    train = data.split("training", data.train_images[:120][middle], data.train_labels[:120])
    test = data.split("test", data.test_images[:100][middle], data.test_labels[:100])
    return train, test


def attempt(splits, checkpoints, settings, model="CNN") -> Training:
    """Train as a new process does: nothing but the checkpoint is left of the one before."""
    seed_everything(1 if not checkpoints.path.exists() else time.time_ns())
    network = models.build({"name": model}, (1, SIZE, SIZE), 10)
    progress = Progress(settings, len(splits[0]), len(splits[1]))
    loss = TrainingLoss(settings.loss, 10, splits[0].labels)
    classes = [str(digit) for digit in range(10)]
    selection = Selection.of(settings, splits[1].labels, classes, "log_softmax")
    return loop.train(network, *splits, loss, settings, checkpoints, progress, selection)


def with_interruptions(splits, folder, stops, config=SETTINGS, model="CNN"):
    """Train to the end, stopped after each of these numbers of steps; return the outcome."""
    for after in stops:
        try:
            run = attempt(splits, Interrupting(folder, after), config, model)
            break
        except Stopped:
            continue
    else:
        run = attempt(splits, Interrupting(folder, 10**9), config, model)
    rows = [{key: row[key] for key in row if key not in TIMES} for row in run.history]
    return run, rows, run.network.state_dict()


@pytest.fixture(scope="module")
def undisturbed(splits, tmp_path_factory):
    return with_interruptions(splits, tmp_path_factory.mktemp("undisturbed"), [])


@pytest.mark.extended
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.lists(st.integers(1, STEPS + 2), max_size=5))
def test_interrupted_anywhere_any_number_of_times(splits, undisturbed, tmp_path_factory, stops):
    run, rows, weights = with_interruptions(splits, tmp_path_factory.mktemp("resumed"), stops)
    assert rows == undisturbed[1]
    assert run.fingerprint == undisturbed[0].fingerprint
    assert run.fingerprint["steps"] == STEPS * SETTINGS.epochs  # fewer than 50
    assert len(run.order_seeds) == (SETTINGS.epochs if SETTINGS.shuffle else 0)
    for name, tensor in undisturbed[2].items():
        assert torch.equal(weights[name], tensor), name
    assert run.resumes <= len(stops)
    assert run.resumes > 0 or not stops or sum(stops) >= 3 * STEPS


EVERYTHING = {
    "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
    "loss": {"name": "nll_loss", "weight": "balanced"},
    "sampling": "balanced",
    "batch_size": 8,
    "accumulate": 2,
    "clip_norm": 1.0,
    "ema": 0.9,
    "keep": "best",
    "patience": 1,
}
SCHEDULES = {
    "one cycle": {"scheduler": {"name": "OneCycleLR", "max_lr": 0.2, "every": "step"}},
    "warmup, cosine": {
        "scheduler": {"name": "CosineAnnealingLR", "T_max": 16, "every": "step"},
        "warmup_epochs": 1,
    },
    "warmup": {"scheduler": None, "warmup_epochs": 2},
}


@pytest.mark.parametrize("schedule", cases(SCHEDULES, "one cycle"))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.lists(st.integers(1, STEPS + 2), min_size=1, max_size=4))
def test_a_whole_recipe_is_interrupted_anywhere(splits, tmp_path_factory, schedule, stops):
    config = replace(SETTINGS, **EVERYTHING | schedule)
    folders = [tmp_path_factory.mktemp(name) for name in ("undisturbed", "resumed")]
    one, rows, weights = with_interruptions(splits, folders[0], [], config)
    run, again, resumed = with_interruptions(splits, folders[1], stops, config)
    assert again == rows
    assert run.fingerprint == one.fingerprint
    assert run.best.epoch == one.best.epoch
    for name, tensor in weights.items():
        assert torch.equal(resumed[name], tensor), name
    for name, tensor in one.model.state_dict().items():  # and those that are averaged
        assert torch.equal(run.model.state_dict()[name], tensor), name


RECIPES = {
    "Adam, cosine": ({"name": "Adam", "lr": 0.01}, {"name": "CosineAnnealingLR", "T_max": 3}),
    "AdamW, none": ({"name": "AdamW", "lr": 0.01}, None),
    "SGD, milestones": (
        {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        {"name": "MultiStepLR", "milestones": [1, 2]},
    ),
    "RMSprop, linear": ({"name": "RMSprop", "lr": 0.01}, {"name": "LinearLR"}),
    "Adagrad, restarts": (
        {"name": "Adagrad", "lr": 0.1},
        {"name": "CosineAnnealingWarmRestarts", "T_0": 2},
    ),
}


def resumed_alike(splits, folder, stops, config, model):
    """Train without interruptions and with them; return the weights, if nothing differs."""
    _, rows, weights = with_interruptions(splits, folder / "a", [], config, model)
    run, again, resumed = with_interruptions(splits, folder / "b", stops, config, model)
    assert run.resumes == len(stops)
    assert again == rows
    assert resumed.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(torch.as_tensor(resumed[name]), torch.as_tensor(value)), name
    return resumed


@pytest.mark.parametrize(("optimizer", "scheduler"), RECIPES.values(), ids=RECIPES.keys())
def test_every_kind_of_state_comes_back(splits, tmp_path, optimizer, scheduler):
    config = replace(SETTINGS, optimizer=optimizer, scheduler=scheduler)
    resumed_alike(splits, tmp_path, [5, 7, 4], config, "MLP")


OWN = replace(SETTINGS, model={"name": "Net"}, loss="cross_entropy", epochs=2)
RANDOM = net(
    init="self.seen = 0",
    forward="x = x + random.random() + np.random.rand()\nself.seen += self.training",
    returns="self.fc(x) * (1 + self.seen)",
    more="def get_extra_state(self): return self.seen\n"
    "def set_extra_state(self, state): self.seen = state",
)
PIXELS = SIZE**2
TRANSPOSED = net(
    f"self.w = nn.Parameter(torch.rand({PIXELS}, {PIXELS}).t() / {PIXELS})", "x = x @ self.w"
)


def test_all_random_numbers_and_extra_state_come_back(splits, tmp_path):
    with own_model(tmp_path, RANDOM):
        resumed = resumed_alike(splits, tmp_path, [5, 7], OWN, "Net")
    assert resumed["_extra_state"] == 2 * STEPS


def test_a_fused_optimizer_resumes_with_parameters_that_are_not_contiguous(splits, tmp_path):
    config = replace(OWN, optimizer={"name": "Adam", "fused": True})
    with own_model(tmp_path, TRANSPOSED):
        resumed_alike(splits, tmp_path, [5, 7], config, "Net")


def test_an_optimizer_resumes_with_a_state_that_is_sparse(splits, tmp_path):
    config = replace(OWN, optimizer={"name": "SGD", "lr": 0.1, "momentum": 0.9})
    embedding = f"self.e = nn.Embedding(9, {PIXELS}, sparse=True)"
    with own_model(tmp_path, net(embedding, "x = x + self.e((x[:, 0] * 8).long().abs() % 9)")):
        resumed_alike(splits, tmp_path, [5, 7], config, "Net")


def test_seconds_add_up_over_interruptions(splits, tmp_path):
    run, _, _ = with_interruptions(splits, tmp_path, [3], replace(SETTINGS, epochs=1), "MLP")
    assert run.history[0]["train_seconds"] > 0


@pytest.fixture
def saved(splits, tmp_path):
    """A folder with a checkpoint in it, after five steps."""
    with pytest.raises(Stopped):
        attempt(splits, Interrupting(tmp_path, 5), SETTINGS)
    return tmp_path


def test_a_checkpoint_is_one_file(saved):
    assert list(saved.iterdir()) == [saved / CHECKPOINT]


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("library", [torch, pickle])
def test_no_code_in_a_checkpoint_runs(tmp_path, capsys, library):
    path, trace = tmp_path / CHECKPOINT, tmp_path / "trace"
    content = {"identity": IDENTITY, "state": Touch(trace)}
    if library is torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert Checkpoints(path, IDENTITY, 1).load() is None
    assert not trace.exists()
    assert f"warning: {path} cannot be read (UnpicklingError); " in capsys.readouterr().err
    with path.open("rb") as file:
        torch.load(file, weights_only=False) if library is torch else pickle.load(file)  # noqa: S301
    assert trace.exists()  # it would have


def test_a_checkpoint_of_an_older_version_is_ignored_with_a_warning(splits, tmp_path, capsys):
    old = tmp_path / "checkpoint.safetensors"
    old.write_bytes(b"its content does not matter")
    with_interruptions(splits, tmp_path, [5], replace(SETTINGS, epochs=1), "MLP")
    warning = f"warning: {old} was written by an older version; training starts from scratch\n"
    assert capsys.readouterr().err == warning  # once: then there is a new one
    assert {old, tmp_path / CHECKPOINT} < set(RunFiles(tmp_path).temporary)


DAMAGES = {
    "a byte less": lambda content: content[:-1],
    "truncated": lambda content: content[:100],
    "empty": lambda content: b"",
    "text": lambda content: b"corrupt",
    "another key": lambda content: content.replace(b"identity", b"identify"),
    "other content": lambda content: bytes(serialize(["identity", "state"])),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_corrupt_checkpoint_is_ignored_with_a_warning(saved, capsys, damage):
    path = saved / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    assert Checkpoints(saved / CHECKPOINT, IDENTITY, 1).load() is None
    assert f"warning: {path} cannot be read" in capsys.readouterr().err


def test_a_checkpoint_of_other_settings_is_ignored_with_a_warning(saved, capsys):
    other = Checkpoints(saved / CHECKPOINT, {"settings": replace(SETTINGS, epochs=4).as_dict()}, 1)
    assert other.load() is None
    assert (
        "is of another run: settings differ; training starts from scratch"
        in capsys.readouterr().err
    )


def test_a_full_disk_keeps_the_checkpoint_before(saved, capsys, monkeypatch):
    before = (saved / CHECKPOINT).read_bytes()
    checkpoints = Checkpoints(saved / CHECKPOINT, IDENTITY, 1)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        checkpoints.save({"large": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the previous checkpoint stays" in capsys.readouterr().err
    assert (saved / CHECKPOINT).read_bytes() == before
    assert list(saved.iterdir()) == [saved / CHECKPOINT]
    assert checkpoints.load()["plain"]["step"] == 5


def test_a_long_epoch_is_saved_now_and_then(splits, tmp_path):
    saves = []

    class Counting(Checkpoints):
        def save(self, state):
            saves.append(state["plain"]["step"])
            super().save(state)

    attempt(
        splits, Counting(tmp_path / CHECKPOINT, {}, interval=0), replace(SETTINGS, epochs=1), "MLP"
    )
    assert saves == [*range(1, STEPS + 1), 0]


# --- as processes


def arguments(small_data, output, *options):
    base = ["--data", small_data, "--output", output, "--log-interval", "1"]
    return [*base, "--set", "model.name=CNN", "epochs=2", *options]


def command(*words):
    return forked("train", *arguments(*words))


def plain(*words):
    """Return the command line of a training in a process that is not forked.

    Its number, its limits, and a signal that kills it are those of the process that a test starts.
    """
    return [sys.executable, "scripts/train.py", *arguments(*words)]


def start(small_data, output, *options, command=command):
    """Start a training and wait until it is in its first steps."""
    process = subprocess.Popen(
        command(small_data, output, *options),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "[192/2000" in line:
            return process
    raise AssertionError(process.stderr.read())


def finish(small_data, output, *options):
    done = subprocess.run(
        command(small_data, output, *options), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "number", cases({"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}, "SIGTERM")
)
def test_a_signal_saves_and_the_same_command_resumes(finished_once, small_data, tmp_path, number):
    process = start(small_data, tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; the checkpoint is saved" in errors
    assert {path.name for path in tmp_path.iterdir()} <= {CHECKPOINT, PROGRESS}
    done = finish(small_data, tmp_path)
    assert "resuming at epoch 1, after " in done.stdout
    assert "Train Epoch: 1 [0/2000" not in done.stdout  # never from zero
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert weights == (finished_once.run_folder("cnn") / "model.safetensors").read_bytes()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["resumes"] == 1
    assert record["fingerprint"] == finished_once.record("cnn")["fingerprint"]
    assert record["fingerprint"]["steps"] == len(record["fingerprint"]["losses"]) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        CHECKPOINT, "history.csv", "model.safetensors", PROGRESS, "run.json",
    ]  # fmt: skip


def test_a_complete_training_that_is_started_again_is_not_done_again(small_data, tmp_path):
    """As Slurm may start a job again that ended while slurmctld was away, its outputs cleared."""
    finish(small_data, tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "history.csv", "run.json"):
        (tmp_path / name).unlink()
    done = finish(small_data, tmp_path)
    assert "resuming at epoch 3, after 0 steps" in done.stdout
    assert "Train Epoch" not in done.stdout
    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_a_killed_training_resumes_from_its_last_checkpoint(finished_once, small_data, tmp_path):
    options = ("--checkpoint-minutes", "0.001")
    process = start(small_data, tmp_path, *options, command=plain)
    process.kill()
    process.wait()
    done = finish(small_data, tmp_path)
    assert "is dead: taking over" in done.stdout
    assert "resuming at epoch 1, after " in done.stdout
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert weights == (finished_once.run_folder("cnn") / "model.safetensors").read_bytes()


@pytest.mark.extended
def test_a_second_writer_waits_for_the_first(small_data, tmp_path):
    first = start(small_data, tmp_path, command=plain)
    done = finish(small_data, tmp_path)
    assert f"process {first.pid} on " in done.stdout
    assert "is training into" in done.stdout
    assert f"{tmp_path} is complete: the other process has finished it" in done.stdout
    first.communicate()
    assert first.returncode == 0
    assert json.loads((tmp_path / "run.json").read_text())["resumes"] == 0


def test_a_frozen_writer_stops_when_another_has_taken_over(small_data, tmp_path, monkeypatch):
    process = start(small_data, tmp_path)
    lease = tmp_path / "lease.json"
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {"process": 1}))
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == os.EX_TEMPFAIL
    assert "has taken over" in errors
    assert not (tmp_path / "model.safetensors").exists()
    assert lease.exists()  # it is the other's


@pytest.mark.extended
def test_a_full_disk_at_the_end_leaves_no_partial_file(finished_once, small_data, tmp_path):
    limit = ["prlimit", "--fsize=1000000"]  # bytes a file: less than the weights
    process = start(small_data, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    before = (tmp_path / CHECKPOINT).read_bytes()
    full = subprocess.run(
        [*limit, *plain(small_data, tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert full.returncode == os.EX_TEMPFAIL
    assert "the previous checkpoint stays" in full.stderr
    assert f"error: cannot write {tmp_path / 'model.safetensors'}: " in full.stderr
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PROGRESS}
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    done = finish(small_data, tmp_path)
    assert "resuming at epoch 1, after " in done.stdout
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert weights == (finished_once.run_folder("cnn") / "model.safetensors").read_bytes()


def test_a_divergence_fails_at_once_when_it_is_tried_again(small_data, tmp_path):
    diverging = ["optimizer={name: SGD, lr: 1e30}"]
    base = command(small_data, tmp_path)
    first = subprocess.run([*base, *diverging], cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["failure.json"]
    again = subprocess.run([*base, *diverging], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 1
    assert "known from" in again.stderr
    assert "Train Epoch" not in again.stdout
    # other settings make it void
    done = finish(small_data, tmp_path, "optimizer={name: SGD, lr: 0.01}")
    assert "Train Epoch" in done.stdout
    assert not (tmp_path / "failure.json").exists()


def test_state_of_any_shape_comes_back():
    state = {"a": [1, {"b": torch.arange(3)}, None], 0: {"x": 1.5, "y": True}, "t": torch.ones(())}
    again = deserialize(io.BytesIO(serialize(state | {"tuple": (1, (2,))})))
    assert again.pop("tuple") == (1, (2,))
    assert again.keys() == state.keys()
    assert torch.equal(again["a"][1]["b"], torch.arange(3))
    assert again[0] == state[0]
    assert again["t"].shape == ()


ARGUMENTS = {
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1, 1]},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "OneCycleLR": {"max_lr": 0.1, "cycle_momentum": False},
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_of_each_optimizer_and_scheduler_can_be_saved(optimizer, scheduler):
    weight = torch.ones(3, requires_grad=True)
    own = make_optimizer({"name": optimizer}, [weight])
    named = {"name": scheduler} | ARGUMENTS.get(scheduler, {})
    rate = make_scheduler(Settings(scheduler=named), own, 5)
    weight.sum().backward()
    own.step()
    rate.step()
    state = Training(torch.nn.Linear(2, 2), own, rate).state()
    again = deserialize(io.BytesIO(serialize(state)))
    assert again["random"]["python"] == state["random"]["python"]
    assert again["random"]["numpy"] == state["random"]["numpy"]
    assert again["scheduler"] == state["scheduler"]
    assert again["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Touch("trace"), "a checkpoint cannot contain io.open"),
        (SETTINGS, "a checkpoint cannot contain lib.core.settings.Settings"),
        (np.float64(1), "a checkpoint cannot contain numpy.*, numpy.dtype"),
        (range(3), "a checkpoint cannot contain builtins.range"),
        (lambda: 1, "Can't pickle"),
        ((n for n in [1]), "cannot pickle 'generator' object"),
        (2**3000, "Unsupported operand"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, value, said):
    with pytest.raises(UserError, match=f"the state of the training cannot be saved: {said}"):
        Checkpoints(tmp_path / CHECKPOINT, {}, 1).save({"state": [value]})
    assert not list(tmp_path.iterdir())


def test_a_state_from_a_gpu_goes_on_here():
    """There, an optimizer counts on the GPU, and a generator of the GPU has its state."""
    weight = torch.ones(3, requires_grad=True)
    training = Training(torch.nn.Module(), torch.optim.Adam([weight]), None)
    weight.sum().backward()
    training.optimizer.step()
    state = training.state()
    assert state["random"]["cuda"] is None
    state["random"]["cuda"] = torch.zeros(16, dtype=torch.uint8)
    state["optimizer"]["param_groups"][0]["capturable"] = True
    training.restore(state)
    assert training.optimizer.param_groups[0]["capturable"] is False
    training.optimizer.step()
    assert training.optimizer.state[weight]["step"] == 2


def test_no_graph_without_a_gpu():
    model = models.build({"name": "MLP"}, (1, 28, 28), 10)
    optimizer = torch.optim.Adadelta(model.parameters())
    assert not graph.allowed(model, optimizer, SETTINGS)
    assert optimizer.param_groups[0]["capturable"] is False
