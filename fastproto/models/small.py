"""Small networks for small pictures: a perceptron and a plain convolutional network."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

SMALLEST_MAP = 4


class MLP(nn.Module):
    """Two hidden layers. [B, channels, image_size, image_size] -> [B, dim]."""

    def __init__(self, channels: int, image_size: int, dim: int, width: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            *_dense(channels * image_size**2, width),
            *_dense(width, width),
            nn.Linear(width, dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


class CNN(nn.Module):
    """Stages of two convolutions and a halving, until the map is 4 to 7 pixels wide; then one linear layer.

    The map is flattened, not averaged: an accent above is not a cedilla below. [B, channels, H, W] -> [B, dim].
    """

    def __init__(self, channels: int, image_size: int, dim: int, width: int = 32) -> None:
        super().__init__()
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        size, before = image_size, channels
        while size >= 2 * SMALLEST_MAP or not stages:
            after = width * min(2 ** len(stages), 4)
            stages[f"stage{len(stages) + 1}"] = nn.Sequential(
                *_convolution(before, after), *_convolution(after, after), nn.MaxPool2d(2)
            )
            size, before = size // 2, after
        self.stages = nn.Sequential(stages)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(before * size**2, dim))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.stages(images))
        return features


def _dense(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)


def _convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
