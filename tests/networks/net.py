"""What all small networks share."""

import torch
from torch import nn


def conv(read: int, made: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    """A convolution that keeps the spatial size."""
    return nn.Conv2d(read, made, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """Takes an image; subclasses say how channels are coupled."""

    shape = (2, 3, 8, 8)

    @classmethod
    def example(cls) -> object:
        """An input, the same each time."""
        return torch.randn(cls.shape, generator=torch.Generator().manual_seed(0))
