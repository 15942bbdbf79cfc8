"""Data loaders of a run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import lightning as L
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Sampler

from fastproto.data import DataSplits, ImagesInMemory, collate
from fastproto.data.splits import Item, LabelledImages
from fastproto.training.batch_checks import check_share
from fastproto.training.settings_and_flags import TrainConfig

SHARE = 4  # a data set takes at most this part of the free memory of a GPU
Order = Sampler[int] | range  # the samples of an epoch


class BatchesInMemory:
    """Batches of a data set that lies on the training device: each is one index operation there.

    The order is that of a DataLoader with the same sampler; Lightning sets the epoch of ``batch_sampler.sampler``.

    Yields:
        uint8 [B, channels, H, W] and int64 [B] on ``device``.
    """

    def __init__(self, part: ImagesInMemory, sampler: Order, batch_size: int, device: torch.device) -> None:
        self.images, self.labels = part.images.to(device), part.labels.to(device)
        self.batch_sampler = BatchSampler(sampler, batch_size, drop_last=False)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Item]:
        order = torch.tensor(list(self.batch_sampler.sampler), dtype=torch.int64, device=self.images.device)
        for chosen in order.split(self.batch_sampler.batch_size):
            yield self.images.index_select(0, chosen), self.labels.index_select(0, chosen)


class Loaders(L.LightningDataModule):
    """Loaders whose order depends only on the seed and the epoch; exactly one rank sees each held-out sample."""

    def __init__(self, config: TrainConfig, data: DataSplits) -> None:
        super().__init__()
        self.config, self.data = config, data

    @cached_property
    def _device(self) -> torch.device | None:
        """Where the parts that lie in memory go; None where they take more than a quarter of a GPU's free memory."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        if device.type != "cuda":
            return torch.device("cpu")
        parts = (self.data.train, self.data.validation, self.data.test)
        size = sum(part.images.nbytes for part in parts if isinstance(part, ImagesInMemory))
        return device if size <= torch.cuda.mem_get_info(device)[0] / SHARE else None

    def _loader(self, dataset: LabelledImages, sampler: Order) -> DataLoader[Item] | BatchesInMemory:
        workers, size = self.config.data.workers, self.config.data.batch_size
        if isinstance(dataset, ImagesInMemory) and self._device is not None:
            return BatchesInMemory(dataset, sampler, size, self._device)
        return DataLoader(
            dataset,
            batch_size=size,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Item] | BatchesInMemory:
        trainer = self.trainer
        assert trainer is not None
        sampler: DistributedSampler[int] = DistributedSampler(
            self.data.train, trainer.world_size, trainer.global_rank, shuffle=True, seed=self.config.seed
        )
        return self._loader(self.data.train, sampler)

    def _evaluation(self, dataset: LabelledImages) -> DataLoader[Item] | BatchesInMemory:
        trainer = self.trainer
        assert trainer is not None
        check_share(len(dataset), "held-out", trainer.world_size)
        return self._loader(dataset, range(trainer.global_rank, len(dataset), trainer.world_size))

    def val_dataloader(self) -> DataLoader[Item] | BatchesInMemory:
        return self._evaluation(self.data.validation)

    def test_dataloader(self) -> DataLoader[Item] | BatchesInMemory:
        return self._evaluation(self.data.test)
