"""The residual networks for 32x32 pictures of He et al. (CVPR 2016, section 4.2)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Shortcut = Literal["pad", "conv", "conv3x3"]
WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Option A, without parameters: every second pixel, new channels filled with zeros, half on either side."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.front = (after - before) // 2
        self.back = after - before - self.front

    def forward(self, images: Tensor) -> Tensor:
        return F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, self.front, self.back))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut. With stride 2: [B, before, H, W] -> [B, after, ceil(H/2), ceil(W/2)]."""

    def __init__(self, before: int, after: int, shortcut: Shortcut) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after and shortcut == "pad":
            self.shortcut = PaddedShortcut(before, after)
        elif before != after:
            width = 3 if shortcut == "conv3x3" else 1
            convolution = nn.Conv2d(before, after, width, stride=stride, padding=width // 2, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))

    def forward(self, images: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(images)))))
        return F.relu(inner + self.shortcut(images))


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of 16, 32 and 64 channels, the mean over the map, one linear layer.

    [B, channels, H, W] -> [B, dim].

    Args:
        depth: number of layers, 6n + 2: 20, 32, 56, ...
        shortcut: where channels double, ``"pad"`` (option A), ``"conv"`` (a 1x1 convolution with BatchNorm, option B)
            or ``"conv3x3"`` (a 3x3 one, as in the published code of hyperspherical prototype networks, NeurIPS 2019).
    """

    def __init__(self, depth: int, channels: int, dim: int, shortcut: Shortcut = "pad") -> None:
        super().__init__()
        per_stage, rest = divmod(depth - 2, 6)
        if rest or per_stage < 1:
            raise ValueError(f"a CIFAR ResNet got depth {depth}: give 6n + 2, for instance 20, 32 or 56")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)
        )
        widths = [width for width in WIDTHS for _ in range(per_stage)]
        self.blocks = nn.Sequential(
            *(Block(before, after, shortcut) for before, after in zip([WIDTHS[0], *widths], widths, strict=False))
        )
        self.head = nn.Linear(WIDTHS[-1], dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return features
