"""Models of a user's own for a test: files in a folder that takes the place of scripts/models."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import models

# A model of one linear layer. The parts in capitals are for a test to fill in.
NET = """
import random

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    output = "logits"

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.fc = nn.Linear(input_shape[-2] * input_shape[-1], num_classes)
        INIT

    def forward(self, images):
        x = images.flatten(1)
        FORWARD
        return RETURN
MORE
"""


def net(init="pass", forward="pass", returns="self.fc(x)", more="") -> str:
    """Return the source of a model `Net`; `more` are lines of its class."""
    indented = "\n".join(f"    {line}" for line in more.splitlines())
    parts = {"INIT": init, "FORWARD": forward, "RETURN": returns, "MORE": indented}
    source = NET
    for word, text in parts.items():
        source = source.replace(word, text.replace("\n", "\n        ") if word != "MORE" else text)
    return source


@contextmanager
def own_model(folder: Path, source: str | bytes, file: str = "net.py") -> Iterator[Path]:
    """Let the folder be where models are looked for, with one file in it."""
    path = folder / file
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    before = models.FOLDER, models.__path__
    models.FOLDER, models.__path__ = folder, [str(folder), *models.__path__]
    try:
        yield path
    finally:
        models.FOLDER, models.__path__ = before
        sys.modules.pop("models.net", None)
