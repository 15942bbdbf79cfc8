"""Checks of batch sizes, made before the run folder exists."""

from __future__ import annotations

import torch
from torch import nn

from fastproto.data import DataSplits
from fastproto.training.settings_and_flags import TrainConfig


def check_batches(config: TrainConfig, data: DataSplits, backbone: nn.Module) -> None:
    """Raise ValueError for a part of the data, or for a batch, that is too small for the devices or the backbone.

    Args:
        backbone: on the meta device, where a forward pass in training mode needs no memory and no arithmetic.
    """
    world = config.devices * config.num_nodes
    for name, part in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        check_share(len(part), name, world)
    share = -(-len(data.train) // world)  # samples per device; the sampler pads all shares to this size
    size = config.data.batch_size
    if _smallest_batch(share, size) > 1 or _accepts_batch(backbone, 1, data):
        return
    where = f"{share} training samples on each of {world} devices" if world > 1 else f"{share} training samples"
    batch = "one batch of one" if share == 1 else "batches of one" if size == 1 else "a last batch of one"
    other = _nearest_batch_size(share, size)
    advice = f"use --data.batch_size {other}" if other else "use more samples or fewer --devices"
    raise ValueError(
        f"data.batch_size is {size} and {where} make {batch}, on which the batch normalisation of {config.model.name} "
        f"cannot be trained; {advice}"
    )


def check_share(count: int, part: str, devices: int) -> None:
    """Raise ValueError if a part of the data has fewer samples than there are devices."""
    if count < devices:
        raise ValueError(
            f"{count} {part} samples for {devices} devices; expected at least one for each: "
            "use fewer --devices or more samples"
        )


def _smallest_batch(share: int, size: int) -> int:
    """Samples in the smallest batch of one device."""
    return share % size or min(size, share)


def _nearest_batch_size(share: int, size: int) -> int | None:
    """The nearest batch size that leaves no batch of one sample, of two the smaller; None: there is none."""
    size = min(size, share)
    # A size that leaves one sample divides share - 1; of 64 consecutive sizes not all do.
    near = range(max(size - 64, 2), min(size + 64, share) + 1)
    fits = [other for other in near if _smallest_batch(share, other) > 1]
    return min(fits, key=lambda other: (abs(other - size), other)) if fits else None


def _accepts_batch(backbone: nn.Module, samples: int, data: DataSplits) -> bool:
    """Whether batch normalisation accepts a batch; feature maps have many values per channel even in one sample."""
    read = data.preprocessing
    images = torch.empty(samples, read.channels, read.image_size, read.image_size, device="meta")
    before = backbone.training
    try:
        with torch.no_grad():
            backbone.train()(images)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return False
        raise
    finally:
        backbone.train(before)
    return True
