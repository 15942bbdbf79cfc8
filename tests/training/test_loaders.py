"""What each rank is given of the data."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Subset

from fastproto.data import load_data
from fastproto.training import TrainConfig
from fastproto.training.loaders import Loaders


@pytest.mark.parametrize("world", [1, 2, 4])
def test_held_out_samples_are_seen_once_over_all_ranks(world: int) -> None:
    data = load_data("digits")
    held_out = Subset(data.validation, range(67))  # which neither ranks nor batches divide
    seen: list[torch.Tensor] = []
    for rank in range(world):
        loaders = Loaders(TrainConfig(), replace(data, validation=held_out))
        loaders.trainer = SimpleNamespace(world_size=world, global_rank=rank)  # type: ignore[assignment]
        seen += [images.flatten(1) for images, _ in loaders.val_dataloader()]
    together, whole = torch.cat(seen), torch.stack([held_out[i][0].flatten() for i in range(67)])
    assert len(together) == 67 and sorted(together.tolist()) == sorted(whole.tolist())
    loaders = Loaders(TrainConfig(), replace(data, validation=Subset(data.validation, range(world - 1))))
    loaders.trainer = SimpleNamespace(world_size=world, global_rank=0)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=f"{world - 1} held-out samples for {world} devices"):
        loaders.val_dataloader()
