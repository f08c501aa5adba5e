"""What a run's settings are: the one list of them, and the names that are valid.

All else follows from the dataclass `Settings`: the defaults, what the config and the command line
may say, what `run.json` holds, what a search may change. A new setting is a field here, the place
that uses it, and a row in config/README.md.

This module imports no torch: the Snakefile reads it at every start, and importing torch takes
seconds. What the names stand for is in `lib/training/recipe.py`.
"""

import json
import re
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Self

from lib.core.signatures import with_defaults

# The settings that name a class or function and its arguments.
COMPONENTS = ("model", "optimizer", "scheduler", "loss")
# Those that the study gives, where they mean something.
OF_THE_STUDY = ("fold", "metric", "positive")
# Those that are off unless somebody wants them: then no command line names them.
OFF = (
    "warmup_epochs", "sampling", "accumulate", "clip_norm", "ema", "keep", "patience",
    *OF_THE_STUDY,
)  # fmt: skip


# Functions of `torch.nn.functional`, and the model outputs that each fits.
LOSSES = {
    "nll_loss": ("log_softmax",),
    # log-softmax of a log-softmax is itself, so both outputs give the same loss
    "cross_entropy": ("logits", "log_softmax"),
    "binary_cross_entropy_with_logits": ("logits",),
    "binary_cross_entropy": ("softmax",),
    # its default reads the output as the logarithm of the rate
    "poisson_nll_loss": ("log_softmax", "logits"),
}

# The arguments of the losses that have some, with their defaults.
LOSS_ARGUMENTS = {
    "nll_loss": {"weight": None},
    "cross_entropy": {"weight": None, "label_smoothing": 0.0},
}

# Those of torch.optim that take dense weights of any shape and no closure.
OPTIMIZERS = "Adadelta Adagrad Adam AdamW Adamax ASGD NAdam RAdam RMSprop Rprop SGD".split()

# Those of torch.optim.lr_scheduler that are stepped without a metric.
SCHEDULERS = (
    "StepLR MultiStepLR ConstantLR LinearLR ExponentialLR PolynomialLR CosineAnnealingLR "
    "CosineAnnealingWarmRestarts OneCycleLR"
).split()

# JSON schemas of values. torch counts in 64 bits; nobody needs more than 31.
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
POSITIVE = COUNT | {"minimum": 1}
NUMBER = {"type": "number"}
NOT_NEGATIVE = NUMBER | {"minimum": 0}
FLAG = {"type": ["boolean", "null"]}
PAIR = {"type": "array", "minItems": 2, "maxItems": 2}
IDENTIFIER = "^[A-Za-z_][A-Za-z0-9_]*\\Z"  # \Z is the end; $ would let a line break pass


def component(properties: dict[str, dict]) -> dict[str, Any]:
    """Return the JSON schema of a class of torch and its arguments, of which some are described.

    These are types and ranges. Which arguments there are is read from the sources of torch. What
    depends on other arguments is found by the dry step, lib/running/dry_step.py.
    """
    return {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}} | properties,
        "additionalProperties": {
            "type": ["number", "boolean", "null", "array", "string"],
            "items": NUMBER,
        },
    }


def each_of(names: str, schema: dict[str, Any]) -> dict[str, dict]:
    """Return the same schema for several arguments."""
    return dict.fromkeys(names.split(), schema)


MODEL = {
    "type": "object",
    "required": ["name"],
    "propertyNames": {
        "description": "letters, digits and '_', as in a Python name",
        "pattern": IDENTIFIER,
    },
    "properties": {
        "name": {"type": "string", "pattern": IDENTIFIER},
        "activation": {"enum": ["relu", "tanh", "gelu", "sigmoid"]},
        "output": {"enum": ["log_softmax", "softmax", "logits"]},
    },
}
OPTIMIZER = component(
    each_of("lr eps weight_decay lr_decay momentum initial_accumulator_value", NOT_NEGATIVE)
    | each_of("dampening rho alpha lambd t0 momentum_decay", NUMBER)
    | {"betas": PAIR | {"items": NOT_NEGATIVE | {"exclusiveMaximum": 1}}}
    | each_of("etas step_sizes", PAIR | {"items": NUMBER | {"exclusiveMinimum": 0}})
    | each_of("amsgrad capturable centered decoupled_weight_decay differentiable foreach", FLAG)
    | each_of("fused maximize nesterov", FLAG)
)
SCHEDULER = component(
    each_of("step_size total_iters T_max T_0 T_mult", POSITIVE)
    | {"milestones": {"type": "array", "items": COUNT}}
    | each_of("gamma factor start_factor end_factor eta_min", NOT_NEGATIVE)
    | each_of("max_lr base_momentum max_momentum", NOT_NEGATIVE)
    | each_of("div_factor final_div_factor", NUMBER | {"exclusiveMinimum": 0})
    | {
        "pct_start": NUMBER | {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "anneal_strategy": {"enum": ["cos", "linear"]},
    }
    | {"power": NUMBER, "every": {"enum": ["epoch", "step"]}}
)
LOSS = {
    "type": ["string", "object"],
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "weight": {
            "type": ["string", "array", "null"],
            "minItems": 2,
            "items": NUMBER | {"exclusiveMinimum": 0},
        },
        "label_smoothing": NOT_NEGATIVE | {"maximum": 1},
    },
    "additionalProperties": {},
}


@dataclass(frozen=True)
class Settings:
    """All that decides the result of one training. The defaults are the lesson's.

    Each has a type, the JSON schema of its values, and its meaning for `--help`. A component, such
    as the optimizer, is a mapping: its `name`, and the arguments of its class.
    """

    model: Annotated[
        dict[str, Any],
        MODEL,
        "a class in scripts/models and its arguments, such as model.hidden=64",
    ] = field(default_factory=dict)
    seed: Annotated[int, COUNT | {"maximum": 2**63 - 1}, "of all random numbers"] = 1
    fold: Annotated[
        int | None,
        POSITIVE | {"type": ["integer", "null"]},
        "of the data, from 1, which is the test set; null where the data has no folds",
    ] = None
    epochs: Annotated[int, POSITIVE, "passes over the training set"] = 3
    batch_size: Annotated[int, POSITIVE, "images per batch"] = 64
    evaluation_batch_size: Annotated[int, POSITIVE, "images per step of an evaluation"] = 1000
    shuffle: Annotated[bool, {"type": "boolean"}, "a new order of the images in each epoch"] = False
    optimizer: Annotated[dict[str, Any], OPTIMIZER, "a class in torch.optim and its arguments"] = (
        field(default_factory=lambda: {"name": "Adadelta", "lr": 1.0})
    )
    scheduler: Annotated[
        dict[str, Any] | None,
        {"oneOf": [{"type": "null"}, SCHEDULER]},
        "a class in torch.optim.lr_scheduler and its arguments, and `every`, epoch or step: when "
        "it is stepped; or null",
    ] = field(default_factory=lambda: {"name": "StepLR", "step_size": 1, "gamma": 0.7})
    warmup_epochs: Annotated[
        int,
        COUNT,
        "epochs in which the learning rate rises to its value, before the scheduler begins",
    ] = 0
    loss: Annotated[
        str | dict[str, Any],
        LOSS,
        "a function in torch.nn.functional that fits the model's output, or a mapping of its name "
        f"and arguments ({', '.join(LOSSES)})",
    ] = "nll_loss"
    sampling: Annotated[
        str | None,
        {"enum": [None, "balanced"]},
        "balanced: in each epoch, draws each class equally often",
    ] = None
    accumulate: Annotated[
        int, POSITIVE, "batches of batch_size images whose gradients make one step"
    ] = 1
    clip_norm: Annotated[
        float | None,
        {"type": ["number", "null"], "exclusiveMinimum": 0},
        "the largest norm of a step's gradient, or null",
    ] = None
    ema: Annotated[
        float | None,
        {"type": ["number", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "the decay, per step, of an average of the weights, which is evaluated in their place, or "
        "null",
    ] = None
    keep: Annotated[
        str,
        {"enum": ["last", "best"]},
        "the epoch whose weights are kept; best: by the metric on the validation images",
    ] = "last"
    patience: Annotated[
        int | None,
        POSITIVE | {"type": ["integer", "null"]},
        "epochs without a better one after which the training ends, with keep=best, or null",
    ] = None
    metric: Annotated[
        str | None,
        {"type": ["string", "null"]},
        "by which keep=best finds the best epoch; null: accuracy",
    ] = None
    positive: Annotated[
        str | None,
        {"type": ["string", "null"]},
        "of two classes, the one that average_precision is of; null: the last",
    ] = None
    validation_size: Annotated[
        float,
        NOT_NEGATIVE | {"maximum": 2**31 - 1},
        "training images held out, or their share, below 1; measured after each epoch, not the "
        "test set",
    ] = 0
    precision: Annotated[
        str, {"enum": ["fp32", "bf16"]}, "bf16: torch.autocast, which changes the numbers"
    ] = "fp32"
    device: Annotated[
        str, {"enum": ["cpu", "cuda", "auto"]}, "cuda fails without a GPU, auto falls back to cpu"
    ] = "cpu"

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Self:
        """Return the settings in a record or a config; those that it lacks have their defaults."""
        return cls(**{name: settings[name] for name in SCHEMAS if name in settings})

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as run.json holds them."""
        return {name: getattr(self, name) for name in SCHEMAS}

    def options(self) -> list[str]:
        """Return the options with which a command reads these settings.

        What is off is not named.
        """
        default = Settings()
        off = [name for name in OFF if getattr(self, name) == getattr(default, name)]
        given = {key: each for key, each in self.as_dict().items() if key not in off}
        return [part for key, each in given.items() for part in ("--set", *words(key, each))]

    @property
    def images_per_step(self) -> int:
        """How many images a step of the optimizer learns from."""
        return self.batch_size * self.accumulate

    @property
    def every_step(self) -> bool:
        """Whether the learning rate changes after each step, rather than after each epoch."""
        return (self.scheduler or {}).get("every") == "step"

    @property
    def packages(self) -> list[str]:
        """The packages that compute beside those of every training, by the names that pip knows."""
        return ["scikit-learn"] if self.keep == "best" else []

    def steps(self, images: int) -> int:
        """Return the steps of an epoch that trains on so many images."""
        return -(-images // self.images_per_step)


# The JSON schema of each setting.
SCHEMAS = {each.name: each.type.__metadata__[0] for each in fields(Settings)}

# The settings that `training` in the config holds, for all experiments or for one.
SHARED = [name for name in SCHEMAS if name not in ("model", "seed", "device", *OF_THE_STUDY)]


def canonical(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings in a form that is equal where they mean the same.

    A setting, or an argument of a component, that is left out has its default. The metric and the
    positive class mean nothing where no epoch is chosen by them.
    """
    settings = Settings().as_dict() | settings
    metric = settings["keep"] == "best" and (settings["metric"] or "accuracy")
    settings["metric"] = metric or None
    if metric != "average_precision":  # the others are the same for both classes, or name one
        settings["positive"] = None
    classes = [kind for kind in COMPONENTS if kind != "loss"]
    return (
        settings
        | {kind: settings[kind] and with_defaults(kind, settings[kind]) for kind in classes}
        | {"loss": loss_of(settings["loss"])}
    )


def loss_of(loss: str | dict[str, Any]) -> dict[str, Any]:
    """Return the name of a loss and all its arguments."""
    given = {"name": loss} if isinstance(loss, str) else loss
    return {"name": given["name"]} | LOSS_ARGUMENTS.get(given["name"], {}) | given


def difference(settings: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """Return the names of the settings that do not mean the same."""
    one, other = canonical(settings), canonical(others)
    return sorted(key for key in one | other if one.get(key) != other.get(key))


def words(key: str, value: Any) -> list[str]:
    """Return a setting as the words that `--set` reads: `epochs=3`, `optimizer.lr=1.0`."""
    if key in COMPONENTS and isinstance(value, dict):
        return [f"{key}.{name}={_spelled(each)}" for name, each in value.items()]
    return [f"{key}={_spelled(value)}"]


def _spelled(value: Any) -> str:
    """Return a value in YAML: as JSON, but for a plain word, which needs no quotes."""
    is_word = isinstance(value, str) and re.fullmatch(IDENTIFIER, value)
    if is_word and value.lower() not in ("null", "true", "false"):
        return value
    # In YAML, a character beyond 16 bits is no pair of surrogates.
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", text)


def help_text() -> str:
    """Return what each setting means, with its default and its values."""
    lines = ["settings, with their defaults:"]
    for each in fields(Settings):
        schema, meaning = each.type.__metadata__
        values = ", ".join(map(str, filter(None, schema.get("enum", ()))))
        if "minimum" in schema:
            values = f"{schema['minimum']} to {schema.get('maximum', 'any number')}"
        default = words(each.name, getattr(Settings(), each.name))
        lines.append("  " + " ".join(default or [f"{each.name}.name=NAME"]))
        lines.append(f"        {meaning}" + (f" ({values})" if values else ""))
    return "\n".join(lines)


def loss_output_mismatch(loss: str, output: str) -> str | None:
    """Return why a loss, by its name, does not fit a model's output, or None where it fits."""
    fitting = LOSSES[loss]
    if output in fitting:
        return None
    others = [name for name, other in LOSSES.items() if output in other]
    return (
        f"loss {loss} does not fit the model's output {output}: it needs {' or '.join(fitting)}; "
        f"{output} goes with {' or '.join(others)}"
    )
