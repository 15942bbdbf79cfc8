"""Random affine augmentation of a whole batch at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AffineJitter(nn.Module):
    """Rotate, scale, shear, shift and mirror every picture of a batch by its own random amounts.

    Amounts are uniform in [-limit, limit], from torch's global generator of the pictures' device. Pixels outside the
    picture repeat its border. In evaluation mode pictures pass unchanged.

    Args:
        rotation: limit of the angle, in degrees.
        scale: limit of the relative change of size, drawn for each axis: 0.1 is 0.9 to 1.1.
        shear: limit of the shear angle, in degrees.
        translation: limit of the shift, as a fraction of the picture's width and height.
        flip: probability of a left-right mirror image.

    Raises:
        ValueError: a negative limit, or one above 180 (rotation), 0.9 (scale), 80 (shear) or 1 (translation, flip).
    """

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        translation: float = 0.0,
        flip: float = 0.0,
    ) -> None:
        super().__init__()
        limits = {"rotation": rotation, "scale": scale, "shear": shear, "translation": translation, "flip": flip}
        upper = {"rotation": 180.0, "scale": 0.9, "shear": 80.0, "translation": 1.0, "flip": 1.0}
        for name, value in limits.items():
            if not 0 <= value <= upper[name]:
                raise ValueError(f"AffineJitter got {name}={value}: give a value from 0 to {upper[name]:g}")
        self.rotation, self.scale, self.shear = rotation, scale, shear
        self.translation, self.flip = translation, flip

    def extra_repr(self) -> str:
        return (
            f"rotation={self.rotation}, scale={self.scale}, shear={self.shear}, "
            f"translation={self.translation}, flip={self.flip}"
        )

    def forward(self, images: Tensor) -> Tensor:
        """Floating [B, channels, H, W] -> the same shape and dtype."""
        if not self.training or len(images) == 0:
            return images
        theta = self._matrices(len(images), images.device).to(images.dtype)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _matrices(self, count: int, device: torch.device) -> Tensor:
        """Random [count, 2, 3] maps from output to input coordinates, which run from -1 to 1."""
        u = 2 * torch.rand(count, 7, device=device) - 1
        angle = u[:, 0] * math.radians(self.rotation)
        slant = torch.tan(u[:, 1] * math.radians(self.shear))
        sx, sy = 1 / (1 + self.scale * u[:, 2]), 1 / (1 + self.scale * u[:, 3])
        sx = torch.where((u[:, 6] + 1) / 2 < self.flip, -sx, sx)
        cos, sin = angle.cos(), angle.sin()
        # rotation @ shear @ scale; shifts come last, in half widths.
        linear = torch.stack([cos * sx, (cos * slant - sin) * sy, sin * sx, (sin * slant + cos) * sy], dim=1)
        return torch.cat([linear.view(-1, 2, 2), 2 * self.translation * u[:, 4:6, None]], dim=2)
