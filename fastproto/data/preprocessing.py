"""From a picture to the input of the network; checkpoints store it, so that prediction needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .colour_profiles import to_srgb
from .decode import eight_bits, orientation, upright
from .optional import require

if TYPE_CHECKING:
    from PIL import Image

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""

STATISTICS: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet200": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}
"""Published statistics of the training pictures; photographs of other sources come close to those of ImageNet."""


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and statistics of the pictures a network was trained on.

    Args:
        image_size: height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        mean, std: per channel, of pixels in [0, 1].
        light_on_dark: training pictures are light strokes on a dark ground: `read` inverts a picture with a light
            edge, such as ink on paper.

    Raises:
        ValueError: image_size < 1, another number of channels, statistics of another length, std <= 0.
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    light_on_dark: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1 or self.channels not in (1, 3):
            raise ValueError(
                f"preprocessing got image_size={self.image_size} and channels={self.channels}: "
                "give a positive size and 1 or 3 channels"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f"preprocessing got mean={self.mean} and std={self.std}: "
                f"give {self.channels} of each, one per channel, with std > 0"
            )

    def read(self, image: Image.Image) -> Tensor:
        """Picture of any size and mode -> uint8 [channels, image_size, image_size].

        Applies the EXIF orientation and the colour profile, makes transparent parts white, converts to 8 bits
        (:func:`fastproto.data.decode.eight_bits`), scales the shorter side to `image_size` and crops the centre.

        Raises ValueError for a mode that cannot be converted.
        """
        pil = require("PIL.Image", "reading an image", "pillow")
        ops = require("PIL.ImageOps", "reading an image", "pillow")
        image.load()  # the orientation of a TIFF is known only then
        profile = image.info.get("icc_profile")
        image = upright(eight_bits(image), orientation(image))
        if image.size != (self.image_size, self.image_size):
            image = ops.fit(image, (self.image_size, self.image_size), pil.Resampling.BICUBIC)
        image, mode = to_srgb(image, profile), "L" if self.channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert(mode)
        # bytearray: a tensor over read-only bytes would warn.
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = flat.view(self.image_size, self.image_size, self.channels).permute(2, 0, 1).contiguous()
        return 255 - pixels if self.light_on_dark and bool(edge(pixels).float().mean() > 127.5) else pixels

    def normalise(self, images: Tensor) -> Tensor:
        """Floating [B, channels, H, W] in [0, 1] -> (images - mean) / std, same dtype and device.

        Raises ValueError for another shape or dtype.
        """
        if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"normalise got {images.dtype} {list(images.shape)}: give floating point "
                f"[B, {self.channels}, H, W] in [0, 1] (uint8 pictures divided by 255)"
            )
        shape = (self.channels, 1, 1)
        return (images - images.new_tensor(self.mean).view(shape)) / images.new_tensor(self.std).view(shape)

    def dark_ground(self, images: Tensor) -> Tensor:
        """Floating [B, channels, H, W] in [0, 1] -> the same, inverted where `read` would do so."""
        if not self.light_on_dark:
            return images
        light = edge(images).mean((1, 2)) > 0.5
        return torch.where(light[:, None, None, None], 1 - images, images)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` is its inverse."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Inverse of `to_dict`. Raises ValueError for missing or unknown keys."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise ValueError(
                f"preprocessing got the keys {sorted(values)}: expected {sorted(known)}, "
                "as written by Preprocessing.to_dict"
            )
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def pixel_statistics(images: Tensor) -> Statistics:
    """Mean and standard deviation per channel, of pixels in [0, 1], of uint8 [N, channels, H, W]."""
    # A histogram needs no floating-point copy of the whole set.
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
        centre = (share * levels).sum()
        mean.append(round(float(centre), 6))
        std.append(max(round(float((share * (levels - centre) ** 2).sum().sqrt()), 6), 1e-6))
    return tuple(mean), tuple(std)


def edge(pixels: Tensor) -> Tensor:
    """The pixels of the four edges [..., channels, 2 H + 2 W] of pictures [..., channels, H, W]."""
    return torch.cat([pixels[..., 0, :], pixels[..., -1, :], pixels[..., :, 0], pixels[..., :, -1]], dim=-1)
