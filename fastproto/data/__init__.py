"""Data sets for training: pictures, labels, reproducible splits and the preprocessing of a picture.

Importing this package needs torch only; a data set imports what it needs when it is loaded.
"""

from __future__ import annotations

from .augment import AffineJitter, CropFlip, ResizedCrop
from .load import DATASETS, load_data
from .preprocessing import Preprocessing
from .splits import DataSplits, ImagesInMemory, collate

__all__ = [
    "DATASETS",
    "AffineJitter",
    "CropFlip",
    "DataSplits",
    "ImagesInMemory",
    "Preprocessing",
    "ResizedCrop",
    "collate",
    "load_data",
]
