"""Made-up models: the dry step refuses one by its name, or all that follows works with it."""

import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch
from budget import seconds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_models import net, own_model

import models
from lib.core.errors import UserError
from lib.core.settings import Settings
from lib.data.batches import Split
from lib.running.dry_step import dry_step
from lib.running.progress import Progress
from lib.training import loop
from lib.training.checkpoint import Checkpoints, Stopped
from lib.training.metrics import evaluate
from lib.training.recipe import TrainingLoss, loss_function
from lib.training.state import Diverged, seed_everything
from lib.training.weights import load_weights, pack, save_weights

IMAGES, CLASSES, SHAPE = 20, 3, (1, 4, 4)
LINEAR = "self.l# = nn.Linear(16, 16)\n"

# Parts of a constructor and of a forward pass, which leaves x [N, 16]. `#` is a number.
PARTS = [
    (LINEAR, "x = torch.relu(self.l#(x))"),
    (LINEAR + "self.l#.requires_grad_(False)", "x = self.l#(x)"),
    (LINEAR + "self.m# = nn.Linear(16, 16)\nself.m#.weight = self.l#.weight", "x = self.m#(x)"),
    (LINEAR + "self.m# = self.l#", "x = self.m#(self.l#(x))"),
    (LINEAR + "self.l#.double()", "x = self.l#(x)"),
    (LINEAR + "self.l# = nn.utils.parametrizations.weight_norm(self.l#)", "x = self.l#(x)"),
    (LINEAR + "self.l# = nn.utils.parametrizations.spectral_norm(self.l#)", "x = self.l#(x)"),
    ("self.l# = nn.LazyLinear(16)", "x = self.l#(x)"),
    ("self.l# = nn.LazyBatchNorm1d()", "x = self.l#(x)"),
    ("self.l# = nn.LazyLinear(16)", "pass"),
    ("self.n# = nn.BatchNorm1d(16)", "x = self.n#(x)"),
    ("self.n# = nn.BatchNorm1d(16, momentum=None, affine=False)", "x = self.n#(x)"),
    ("self.n# = nn.BatchNorm1d(16, track_running_stats=False)", "x = self.n#(x)"),
    ("self.d# = nn.Dropout(0.3)", "x = self.d#(x)"),
    ("self.d# = nn.Dropout(0.3, inplace=True)", "x = self.d#(x)"),
    ("self.c# = nn.Conv2d(1, 1, 3, padding=1)", "x = self.c#(x.view(-1, 1, 4, 4)).flatten(1)"),
    (
        "self.c# = nn.Conv2d(4, 4, 3, padding=1).to(memory_format=torch.channels_last)",
        "x = self.c#(x.view(-1, 4, 2, 2)).flatten(1)",
    ),
    ("self.r# = nn.GRU(16, 16, batch_first=True)", "x = self.r#(x.unsqueeze(1))[0][:, 0]"),
    (
        "self.e# = nn.Embedding(4, 16, sparse=True)",
        "x = x + self.e#(torch.zeros(len(x), dtype=torch.long))",
    ),
    ("self.w# = nn.Parameter(torch.rand(16, 16).t() / 16)", "x = x @ self.w#"),
    ("self.w# = nn.Parameter(torch.rand(1).expand(16))", "x = x * self.w#"),
    ("self.w# = nn.Parameter(torch.rand(16, dtype=torch.complex64))", "x = (x * self.w#).real"),
    ("self.w# = nn.ParameterList([torch.rand(16) for _ in range(2)])", "x = x * self.w#[1]"),
    ("self.register_buffer('b#', torch.rand(1).expand(16))", "x = x * self.b#"),
    ("self.register_buffer('b#', torch.ones(16).expand(16), persistent=False)", "x = x * self.b#"),
    ("self.register_buffer('b#', torch.rand(16), persistent=False)", "x = x + self.b#"),
    (
        "self.register_buffer('b#', torch.rand(16, dtype=torch.complex128).conj())",
        "x = x * self.b#.real.float()",
    ),
    ("big = torch.rand(20)\nself.register_buffer('b#', big[4:])", "x = x + self.b#"),
    ("self.register_buffer('b#', torch.zeros(()))", "self.b#.add_(self.training)\nx = x + self.b#"),
    ("self.register_buffer('b#', torch.ones(16))", "self.b# = self.b# * 0.9\nx = x * self.b#"),
    ("self.register_buffer('b#', torch.eye(16).to_sparse())", "x = x @ self.b#"),
    ("self.register_buffer('b#', None)", "pass"),
    ("self.s# = 0", "self.s# += self.training\nx = x + self.s#"),
    ("self.g# = torch.Generator()", "x = x + torch.rand(16, generator=self.g#)"),
    ("pass", "x = x + torch.rand(16)"),
    ("pass", "x = x + np.random.rand()"),
    ("pass", "x = x + random.random()"),
    ("pass", "x = x + torch.from_numpy(np.random.normal(size=16)).float()"),
    ("self.k# = random.randrange(16)", "x = torch.roll(x, self.k#, 1)"),
    ("pass", "x.relu_()"),
    ("pass", "images.mul_(0.5)"),
    ("pass", "images.zero_()"),
    ("pass", "x = x.double()"),
    ("pass", "x = x.half()"),
    ("self.nosuch", "pass"),
    ("pass", "x = self.nosuch(x)"),
    ("pass", "x = x.detach()"),
    ("raise OSError('no disk')", "pass"),
    ("pass", "raise MemoryError"),
    ("pass", "assert not self.training"),
    ("pass", "assert self.training"),
]
GOOD_ONES = ["self.fc(x)"] * 6
RETURNS = [
    *GOOD_ONES, "self.fc(x.float())", "self.fc(x).double()", "x[:, :3]", "(self.fc(x), x)",
    "self.fc(x)[:, :2]", "self.fc(x).repeat(1, 2)", "self.fc(x)[0]", "self.fc(x).argmax(1)", "None",
    "self.fc(x) * float('nan')", "self.fc(x) * (1 if self.training else float('inf'))",
    "self.fc(x).detach()", "self.fc(x).log()", "self.fc(x) - torch.tensor([0, 0, float('inf')])",
    "self.fc(x).softmax(1)", "self.fc(x).log_softmax(1)", "self.fc(x).to(torch.complex64)",
]  # fmt: skip
MORE = [
    *[""] * 6,
    "def get_extra_state(self): return {'a': (1, torch.ones(1)), 2: None}\n"
    "def set_extra_state(self, state): assert state['a'][0] == 1 and state[2] is None",
    "def get_extra_state(self): return {1, 2}\ndef set_extra_state(self, state): pass",
    "def get_extra_state(self): return 1",
    "def state_dict(self, *args, **keywords): return {}",
]
DAMAGE = {
    "none": lambda source: source,
    "truncated": lambda source: source[: len(source) * 2 // 3],
    "latin": lambda source: (source + "# caf\xe9").encode("latin-1"),
    "NUL": lambda source: source + "\0",
    "class": lambda source: source.replace("class Net", "class Neat"),
    "import": lambda source: "import nosuch\n" + source,
    "argument": lambda source: source.replace("num_classes):", "num_classes, width):"),
    "default": lambda source: source.replace("num_classes):", "num_classes, width=3):"),
    "bom": lambda source: "\ufeff" + source,
}


@st.composite
def sources(draw):
    parts = draw(st.lists(st.sampled_from(PARTS), max_size=4))
    init = [init.replace("#", str(n)) for n, (init, _) in enumerate(parts)]
    forward = [forward.replace("#", str(n)) for n, (_, forward) in enumerate(parts)]
    source = net(
        "\n".join(["pass", *init]),
        "\n".join(["pass", *forward]),
        draw(st.sampled_from(RETURNS)),
        draw(st.sampled_from(MORE)),
    )
    return DAMAGE[draw(st.sampled_from(["none"] * 15 + list(DAMAGE)))](source)


OPTIMIZERS = [
    {"name": "SGD", "lr": 0.01, "momentum": 0.9}, {"name": "Adadelta", "lr": 1.0}, {"name": "Adam"},
    {"name": "Adam", "amsgrad": True, "foreach": False}, {"name": "NAdam"}, {"name": "ASGD"},
    {"name": "Rprop"}, {"name": "RMSprop", "centered": True}, {"name": "SGD", "lr": 1e308},
    {"name": "Adam", "fused": True}, {"name": "SGD", "nesterov": True},
]  # fmt: skip
SCHEDULERS = [
    None, {"name": "StepLR", "step_size": 1}, {"name": "CosineAnnealingLR", "T_max": 2},
    {"name": "MultiStepLR", "milestones": [1]}, {"name": "StepLR", "step_size": 0},
]  # fmt: skip


@st.composite
def trainings(draw):
    return Settings(
        {"name": "Net"} | draw(st.sampled_from([{}] * 8 + [{"width": 2}])),
        seed=draw(st.sampled_from([0, 1, 2**40])),
        epochs=2,
        batch_size=draw(st.sampled_from([3, 7, 8, 18, 19, 30])),
        evaluation_batch_size=draw(st.sampled_from([1, 3, 4, 100])),
        shuffle=draw(st.booleans()),
        optimizer=draw(st.sampled_from(OPTIMIZERS)),
        scheduler=draw(st.sampled_from(SCHEDULERS)),
        loss=draw(st.sampled_from(["cross_entropy", "cross_entropy", "nll_loss"])),
        precision=draw(st.sampled_from(["fp32", "fp32", "bf16"])),
    )


def splits():
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES + 10, *SHAPE)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES + 10) % CLASSES
    scale = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    return (
        Split("training", images[:IMAGES], labels[:IMAGES], *scale),
        Split("test", images[IMAGES:], labels[IMAGES:], *scale),
    )


class Interrupting(Checkpoints):
    """Asks to stop after so many steps, as a signal would."""

    left = 0

    @property
    def save_due(self):
        self.left -= 1
        if self.left == 0:
            self.signal = signal.SIGTERM
        return super().save_due


def attempt(config, file, stop, data):
    """Train as a new process does: nothing but the checkpoint is left of the one before."""
    checkpoints = Interrupting(file, {}, interval=1e9)
    checkpoints.left = stop
    seed_everything(config.seed)
    model = models.build(config.model, SHAPE, CLASSES)
    progress = Progress(config, IMAGES, 10)
    loss = TrainingLoss(config.loss, CLASSES, data[0].labels)
    return loop.train(model, *data, loss, config, checkpoints, progress)


def trained(config, file, stop=0):
    """Train with one interruption or none; return what must be equal with and without it."""
    data = splits()
    try:
        training = attempt(config, file, stop, data)
    except Stopped:
        training = attempt(config, file, 0, data)
    for after, before in zip(data, splits(), strict=True):
        assert torch.equal(after.images, before.images), "the data has changed"
    rows = [{key: row[key] for key in row if "seconds" not in key} for row in training.history]
    return training.model, rows


def assert_same_weights(one, other):
    (ours, extra), (theirs, their_extra) = pack(one), pack(other)
    assert extra == their_extra
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor.nan_to_num(), theirs[name].nan_to_num()), name


def output(model, config, data):
    seed_everything(3)
    return evaluate(model, data, loss_function(config.loss, CLASSES), 5)[1]


def judge(source, config, stop, folder):
    with own_model(folder, source):
        try:
            dry_step(config, SHAPE, CLASSES, IMAGES, [10], torch.device("cpu"))
        except UserError as error:
            named = ("Net", "net.py", "optimizer: ", "scheduler: ")
            assert any(word in str(error) for word in named), error
            return
        try:
            model, rows = trained(config, folder / "a")
        except Diverged:
            return
        again, resumed_rows = trained(config, folder / "b", stop)
        assert rows == resumed_rows
        assert_same_weights(model, again)
        save_weights(model, folder / "weights")
        seed_everything(config.seed)
        loaded = models.build(config.model, SHAPE, CLASSES)
        load_weights(loaded, folder / "weights")
        held_out = splits()[1]
        assert torch.equal(output(model, config, held_out), output(loaded, config, held_out))


@pytest.mark.filterwarnings("ignore")
def test_a_model_works_or_is_refused_by_name():
    @settings(
        max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(source=sources(), config=trainings(), stop=st.integers(1, 9))
    def search(source, config, stop):
        with tempfile.TemporaryDirectory() as folder:
            judge(source, config, stop, Path(folder))

    end = time.monotonic() + seconds()
    while time.monotonic() < end:
        search()
