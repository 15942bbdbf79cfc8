"""Handwritten digits: 1,797 pictures of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .augment import AffineJitter
from .optional import require
from .preprocessing import Preprocessing, pixel_statistics
from .splits import DataSplits, ImagesInMemory, hold_out

SPLIT_SEED = 2024


def load_digits(image_size: int | None = None) -> DataSplits:
    """Digits 0 to 9: about 66 % training, 9 % validation, 25 % test, stratified, the same on every call."""
    source = require("sklearn.datasets", "the data set 'digits'", "scikit-learn").load_digits()
    images = torch.from_numpy(source.images).float().unsqueeze(1) * (255 / 16)
    if image_size not in (None, images.shape[-1]):
        images = F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)
    pictures = images.round().clamp(0, 255).to(torch.uint8)
    labels = torch.from_numpy(source.target).long()

    rest, test = hold_out(labels, 0.25, SPLIT_SEED)
    kept, held = hold_out(labels[rest], 0.12, SPLIT_SEED)
    train, validation = rest[kept], rest[held]
    mean, std = pixel_statistics(pictures[train])
    return DataSplits(
        train=ImagesInMemory(pictures[train], labels[train]),
        validation=ImagesInMemory(pictures[validation], labels[validation]),
        test=ImagesInMemory(pictures[test], labels[test]),
        class_names=tuple("0123456789"),
        preprocessing=Preprocessing(pictures.shape[-1], 1, mean, std, light_on_dark=True),
        augmentation=AffineJitter(rotation=10, scale=0.1, shear=6, translation=0.06),
    )
