"""What each rank is given of the data."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from fastproto.data import DataSplits, load_data
from fastproto.training import TrainConfig
from fastproto.training.loaders import BatchesInMemory, Loaders

CPU = SimpleNamespace(root_device=torch.device("cpu"))


def loaders_of(rank: int, world: int, data: DataSplits, seed: int = 0) -> Loaders:
    loaders = Loaders(TrainConfig(seed=seed), data)
    loaders.trainer = SimpleNamespace(world_size=world, global_rank=rank, strategy=CPU)  # type: ignore[assignment]
    return loaders


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return load_data("digits")


def file_by_file(data: DataSplits) -> DataSplits:
    """The same samples behind a data set that does not say that they lie in memory."""
    parts = (data.train, data.validation, data.test)
    train, validation, test = (Subset(part, range(len(part))) for part in parts)
    return replace(data, train=train, validation=validation, test=test)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_held_out_samples_are_seen_once_over_all_ranks(world: int, data: DataSplits) -> None:
    held_out = Subset(data.validation, range(67))  # which neither ranks nor batches divide
    seen: list[torch.Tensor] = []
    for rank in range(world):
        loaders = loaders_of(rank, world, replace(data, validation=held_out))
        seen += [images.flatten(1) for images, _ in loaders.val_dataloader()]
    together, whole = torch.cat(seen), torch.stack([held_out[i][0].flatten() for i in range(67)])
    assert len(together) == 67 and sorted(together.tolist()) == sorted(whole.tolist())
    loaders = loaders_of(0, world, replace(data, validation=Subset(data.validation, range(world - 1))))
    with pytest.raises(ValueError, match=f"{world - 1} held-out samples for {world} devices"):
        loaders.val_dataloader()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_in_memory_are_those_of_a_data_loader(world: int, data: DataSplits) -> None:
    orders = set()
    for rank in range(world):
        ours, theirs = (loaders_of(rank, world, splits, seed=5) for splits in (data, file_by_file(data)))
        assert type(ours.train_dataloader()) is BatchesInMemory and type(theirs.train_dataloader()) is DataLoader
        for make in ("train_dataloader", "val_dataloader", "test_dataloader"):
            one, other = getattr(ours, make)(), getattr(theirs, make)()
            for epoch in range(3 if make == "train_dataloader" else 1):
                for loader in (one, other):
                    if make == "train_dataloader":
                        loader.batch_sampler.sampler.set_epoch(epoch)
                batches = list(one)
                assert len(batches) == len(one) == len(other)
                for (images, labels), (same, names) in zip(batches, other, strict=True):
                    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
                    assert torch.equal(images, same) and torch.equal(labels, names)
                orders.add(tuple(torch.cat([labels for _, labels in batches]).tolist()))
    assert len(orders) == 5 * world  # three epochs, validation, test
