"""The lesson's multilayer perceptron."""

import math

import torch
from torch import nn

from models.layers import activation as make_activation
from models.layers import output_layer


class MLP(nn.Module):
    """One hidden layer of 128 units: 101,770 parameters on MNIST."""

    cuda_graph = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden: int = 128,
        activation: str = "relu",
        output: str = "log_softmax",
    ):
        super().__init__()
        self.fc1 = nn.Linear(math.prod(input_shape), hidden)
        self.activation = make_activation(activation)
        self.fc2 = nn.Linear(hidden, num_classes)
        self.output = output_layer(output)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [N, channels, height, width] to [N, classes]."""
        x = torch.flatten(images, 1)
        x = self.activation(self.fc1(x))
        return self.output(self.fc2(x))
