"""Building blocks that the models share: activations and output layers by name."""

from functools import partial

from torch import nn

# ReLU changes its input in place. The input is always the new result of a layer, so this saves a
# copy of the largest tensors of a network.
ACTIVATIONS = {
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}

OUTPUTS = {
    "log_softmax": lambda: nn.LogSoftmax(dim=1),
    "softmax": lambda: nn.Softmax(dim=1),
    "logits": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """Return the activation of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    return _choose("activation", name, ACTIVATIONS)


def output_layer(name: str) -> nn.Module:
    """Return the layer that turns logits [N, classes] into the output of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    return _choose("output", name, OUTPUTS)


def _choose(what: str, name: str, choices: dict) -> nn.Module:
    if name not in choices:
        raise ValueError(f"unknown {what} {name!r}; valid are: {', '.join(choices)}")
    return choices[name]()
