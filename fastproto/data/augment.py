"""Random augmentation of a whole batch at once: small affine changes, crops, flips."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.support.data_options import Augment

TRIES = 10  # of a random window


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
        u = 2 * torch.rand(count, 7, dtype=torch.float32, device=device) - 1
        angle = u[:, 0] * math.radians(self.rotation)
        slant = torch.tan(u[:, 1] * math.radians(self.shear))
        sx, sy = 1 / (1 + self.scale * u[:, 2]), 1 / (1 + self.scale * u[:, 3])
        sx = torch.where((u[:, 6] + 1) / 2 < self.flip, -sx, sx)
        cos, sin = angle.cos(), angle.sin()
        # rotation @ shear @ scale; shifts come last, in half widths.
        linear = torch.stack([cos * sx, (cos * slant - sin) * sy, sin * sx, (sin * slant + cos) * sy], dim=1)
        return torch.cat([linear.view(-1, 2, 2), 2 * self.translation * u[:, 4:6, None]], dim=2)


class CropFlip(nn.Module):
    """Pad every picture with black, cut a window of its size at a random place, and mirror some of them.

    Places are uniform and drawn from torch's global generator of the pictures' device. In evaluation mode pictures
    pass unchanged.

    Args:
        padding: pixels added on each side.
        flip: probability of a left-right mirror image.
    """

    def __init__(self, *, padding: int = 4, flip: float = 0.5) -> None:
        super().__init__()
        if padding < 0 or not 0 <= flip <= 1:
            raise ValueError(f"CropFlip got padding={padding}, flip={flip}: give padding >= 0 and flip from 0 to 1")
        self.padding, self.flip = padding, flip

    def extra_repr(self) -> str:
        return f"padding={self.padding}, flip={self.flip}"

    def forward(self, images: Tensor) -> Tensor:
        """Floating [B, channels, H, W] -> the same shape and dtype."""
        if not self.training or len(images) == 0:
            return images
        (count, _, height, width), device = images.shape, images.device
        top, left = torch.randint(0, 2 * self.padding + 1, (2, count), device=device)
        rows = top[:, None] + torch.arange(height, device=device)
        columns = left[:, None] + torch.arange(width, device=device)
        columns = torch.where(_mirrored(count, self.flip, device), columns.flip(1), columns)
        return pixels_at(F.pad(images, [self.padding] * 4), rows, columns)


class ResizedCrop(nn.Module):
    """Cut a window of random area, shape and place from every picture, scale it to the picture's size, mirror some.

    Windows are those of Inception: an area in ``scale`` of the picture's, a ratio of width to height uniform on a log
    scale, the first of ten tries that fits into the picture (the whole picture if none does). They are drawn from
    torch's global generator of the pictures' device. In evaluation mode pictures pass unchanged.

    Args:
        scale: least and largest area, as a part of the picture's.
        ratio: least and largest width divided by height.
        flip: probability of a left-right mirror image.
    """

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1] and 0 <= flip <= 1):
            raise ValueError(
                f"ResizedCrop got scale={scale}, ratio={ratio}, flip={flip}: give 0 < scale <= 1 and ratio > 0, the "
                "smaller number first, and flip from 0 to 1"
            )
        self.scale, self.ratio, self.flip = scale, ratio, flip

    def extra_repr(self) -> str:
        return f"scale={self.scale}, ratio={self.ratio}, flip={self.flip}"

    def forward(self, images: Tensor) -> Tensor:
        """Floating [B, channels, H, W] -> the same shape and dtype."""
        if not self.training or len(images) == 0:
            return images
        count, device = len(images), images.device
        boxes = self.boxes(count, images.shape[-2:], device)
        return cut_and_scale(images, boxes, _mirrored(count, self.flip, device))

    def boxes(self, count: int, size: Sequence[int], device: torch.device) -> Tensor:
        """Random windows of a picture of ``size`` (height, width): top, left, height, width, float32 [count, 4]."""
        height, width = size
        area, shape = torch.rand(2, count, TRIES, dtype=torch.float32, device=device)
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * area)
        low, high = map(math.log, self.ratio)
        shape = torch.exp(low + (high - low) * shape)
        tall, wide = (area / shape).sqrt().round(), (area * shape).sqrt().round()
        fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
        first, none = fits.int().argmax(1, keepdim=True), ~fits.any(1, keepdim=True)
        tall = tall.gather(1, first).masked_fill(none, height)
        wide = wide.gather(1, first).masked_fill(none, width)
        top, left = torch.rand(2, count, 1, dtype=torch.float32, device=device)
        top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
        return torch.cat([top, left, tall, wide], dim=1)


def pixels_at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels [B, channels, h, w] of [B, channels, H, W] at the crossings of rows [B, h] and columns [B, w], int64."""
    count, channels = images.shape[:2]
    samples = torch.arange(count, device=images.device)[:, None, None, None]
    maps = torch.arange(channels, device=images.device)[:, None, None]
    return images[samples, maps, rows[:, None, :, None], columns[:, None, None, :]]


def cut_and_scale(images: Tensor, boxes: Tensor, mirrored: Tensor) -> Tensor:
    """Windows of floating [B, channels, H, W], scaled to H x W: ``F.interpolate(window, (H, W), mode="bilinear")``.

    Args:
        boxes: top, left, height and width of each window in pixels, float32 [B, 4].
        mirrored: which windows to mirror, bool [B, 1].
    """
    height, width = images.shape[-2:]
    top, left, tall, wide = boxes[:, :, None].unbind(1)
    y, x = _places(top, tall, height), _places(left, wide, width)
    x = torch.where(mirrored, x.flip(1), x)
    shape = (len(images), height, width)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=3).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _places(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where the ``size`` samples of windows [B, 1] lie, [B, size]; the picture's ``size`` pixels go from -1 to 1."""
    steps = (torch.arange(size, dtype=torch.float32, device=start.device) + 0.5) / size
    pixels = (start + steps * length - 0.5).maximum(start).minimum(start + length - 1)  # no pixel from outside
    return (2 * pixels + 1) / size - 1


def _mirrored(count: int, flip: float, device: torch.device) -> Tensor:
    return torch.rand(count, 1, device=device) < flip


def photo_jitter(flip: float = 0.5) -> AffineJitter:
    """Small affine changes that a photograph of any subject bears."""
    return AffineJitter(rotation=5, scale=0.15, translation=0.1, flip=flip)


def choose_augmentation(choice: Augment, own: nn.Module | None) -> nn.Module | None:
    """The augmentation that was asked for; mirror images are as frequent as in ``own``.

    Args:
        own: that of the data set, which ``"auto"`` means, and ``"jitter"`` where it is one.
    """
    if choice == "auto" or (choice == "jitter" and isinstance(own, AffineJitter)):
        return own
    return None if choice == "none" else MADE[choice](flip=getattr(own, "flip", 0.0))


MADE: dict[str, Callable[..., nn.Module]] = {
    "jitter": photo_jitter,
    "crop_flip": CropFlip,
    "resized_crop": ResizedCrop,
}
