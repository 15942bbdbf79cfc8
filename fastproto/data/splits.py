"""A data set as training takes it: three splits, class names and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .preprocessing import Preprocessing

Item = tuple[Tensor, Tensor]
"""uint8 image [channels, H, W] and int64 label []; batched: [B, channels, H, W] and [B]."""


class LabelledImages(Dataset[Item]):
    """A data set whose labels, int64 [N], are known without reading a picture."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def check(self) -> None:
        """Raise ValueError for an item that cannot be read, as far as a quick check can tell."""

    def take(self, indices: Tensor) -> LabelledImages:
        """The items at these indices, int64 [n], in this order."""
        raise NotImplementedError  # each kind of data set has its own; needed for long tails alone


@dataclass(frozen=True)
class DataSplits:
    """A data set ready for training.

    ``validation`` chooses the checkpoint; ``test`` is evaluated once, at the end. ``augmentation`` (or None) maps
    floating [B, channels, H, W] in [0, 1] to the same, batched on the training device, before
    ``preprocessing.normalise``.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    augmentation: nn.Module | None = None


class ImagesInMemory(LabelledImages):
    """Pictures uint8 [N, channels, H, W] with labels int64 [N]; ValueError for other shapes or dtypes."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images are {images.dtype} {list(images.shape)}: give uint8 [N, channels, H, W]")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}: give int64 [{len(images)}]")
        self.images, self.labels = images, labels

    def __getitem__(self, index: int) -> Item:
        return self.images[index], self.labels[index]

    def take(self, indices: Tensor) -> ImagesInMemory:
        """A copy of the items at these indices, int64 [n], in this order."""
        return ImagesInMemory(self.images[indices], self.labels[indices])

    def __getitems__(self, indices: Sequence[int]) -> Item:
        """A whole batch in one index operation, which `collate` passes through."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return self.images[chosen], self.labels[chosen]


def collate(batch: Item | Sequence[Item]) -> Item:
    """For ``DataLoader(..., collate_fn=collate)``: pass a batched pair through, stack a list of items.

    Returns uint8 images [B, channels, H, W] and int64 labels [B].
    """
    if isinstance(batch, tuple) and batch[0].ndim == 4:
        images, labels = batch
        return images, labels
    return torch.stack([image for image, _ in batch]), torch.stack([label for _, label in batch])


def hold_out(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Stratified split of the indices: (kept, held out), both int64 and ascending.

    Of every class at least one item is held out and one kept. Raises ValueError if a class has a single item.
    """
    counts = torch.bincount(labels)
    if bool((counts == 1).any()):
        lone = int((counts == 1).nonzero()[0])
        raise ValueError(
            f"class {lone} has 1 picture and cannot be split into training and held-out parts: add pictures to it"
        )
    quota = (counts * fraction).round().long().clamp(min=1)
    held, kept = draw_by_class(labels, torch.minimum(quota, counts - 1), seed)
    return kept, held


def draw_by_class(labels: Tensor, quota: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of ``quota[c]`` random items of each class c, and of the others: both int64 and ascending."""
    counts = torch.bincount(labels)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    drawn = rank < quota[labels[order]]
    return order[drawn].sort().values, order[~drawn].sort().values
