"""Small networks for small pictures: a perceptron and a plain convolutional network."""

from __future__ import annotations

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
    """3x3 convolutions that halve the map until it is 4 to 8 pixels wide, then one hidden layer.

    [B, channels, image_size, image_size] -> [B, dim].

    The map is flattened, not averaged, since position matters: an accent above is not a cedilla below. Without the
    hidden layer a prototype loss stays far behind softmax, since prototypes are placed without regard to the classes.
    Halving begins at the first convolution: the full picture would take most of the time.
    """

    def __init__(self, channels: int, image_size: int, dim: int, width: int = 24, hidden: int = 512) -> None:
        super().__init__()
        halvings = (image_size // SMALLEST_MAP).bit_length() - 1
        strides = [2] * (halvings - 1) + [1, 2] if halvings else [1, 1]
        widths = [channels, *(width * min(2**depth, 4) for depth in range(len(strides)))]
        layers = [
            layer
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
            for layer in _convolution(before, after, stride)
        ]
        size = image_size
        for stride in strides:
            size = -(-size // stride)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.dense = nn.Sequential(*_dense(widths[-1] * size**2, hidden), nn.Linear(hidden, dim))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.dense(self.convolutions(images))
        return features


def _dense(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)


def _convolution(before: int, after: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
