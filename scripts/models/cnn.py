"""The lesson's convolutional network, that of pytorch/examples' MNIST."""

import torch
from torch import nn

from models.layers import activation as make_activation
from models.layers import output_layer


class CNN(nn.Module):
    """Two convolutions, two linear layers: 1,199,882 parameters on MNIST."""

    cuda_graph = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        activation: str = "relu",
        output: str = "log_softmax",
    ):
        super().__init__()
        channels, *image_size = input_shape
        # Each 3x3 convolution removes one pixel on each side, and the pooling halves the rest.
        height, width = ((size - 4) // 2 for size in image_size)
        if min(height, width) < 1:
            raise ValueError(f"images of {image_size[0]}x{image_size[1]} are too small for it")
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.pool = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout2d(0.25)  # whole channels, not single values
        self.fc1 = nn.Linear(64 * height * width, 128)
        self.dropout2 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, num_classes)
        self.activation = make_activation(activation)
        self.output = output_layer(output)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [N, channels, height, width] to [N, classes]."""
        # On the CPU, images stay in the layout in which oneDNN computes convolutions, instead of
        # being converted before and after each one. No bit changes. It supports ReLU only, and
        # neither torch.export nor torch.compile knows this layout.
        blocked = images.is_cpu and isinstance(self.activation, nn.ReLU)
        blocked = blocked and not torch.is_autocast_enabled("cpu")
        blocked = blocked and not torch.compiler.is_compiling()
        x = images.to_mkldnn() if blocked else images
        x = self.activation(self.conv1(x))
        x = self.activation(self.conv2(x))
        x = self.pool(x)
        x = self.dropout1(x.to_dense() if blocked else x)
        x = torch.flatten(x, 1)
        x = self.dropout2(self.activation(self.fc1(x)))
        return self.output(self.fc2(x))
