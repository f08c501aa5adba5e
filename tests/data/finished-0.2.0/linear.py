"""Softmax regression: one linear layer."""

import torch
from torch import nn


class Linear(nn.Module):
    """One weight per pixel and class, and one bias per class."""

    output = "logits"  # what forward returns: logits, log_softmax or softmax

    def __init__(self, image_size: tuple[int, int], num_classes: int):
        super().__init__()
        self.fc = nn.Linear(image_size[0] * image_size[1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [N, 1, height, width] to [N, classes]."""
        return self.fc(torch.flatten(images, 1))
