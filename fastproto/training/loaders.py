"""Data loaders of a run."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
import torch
from torch.utils.data import DataLoader, DistributedSampler

from fastproto.data import DataSplits, collate
from fastproto.data.splits import Item, LabelledImages
from fastproto.training.batch_checks import check_share
from fastproto.training.settings import TrainConfig


class Loaders(L.LightningDataModule):
    """Loaders whose order depends only on the seed and the epoch; exactly one rank sees each held-out sample."""

    def __init__(self, config: TrainConfig, data: DataSplits) -> None:
        super().__init__()
        self.config, self.data = config, data

    def _loader(self, dataset: LabelledImages, sampler: Iterable[int]) -> DataLoader[Item]:
        workers = self.config.data.workers
        return DataLoader(
            dataset,
            batch_size=self.config.data.batch_size,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Item]:
        trainer = self.trainer
        assert trainer is not None
        sampler: DistributedSampler[int] = DistributedSampler(
            self.data.train, trainer.world_size, trainer.global_rank, shuffle=True, seed=self.config.seed
        )
        return self._loader(self.data.train, sampler)

    def _evaluation(self, dataset: LabelledImages) -> DataLoader[Item]:
        trainer = self.trainer
        assert trainer is not None
        check_share(len(dataset), "held-out", trainer.world_size)
        return self._loader(dataset, range(trainer.global_rank, len(dataset), trainer.world_size))

    def val_dataloader(self) -> DataLoader[Item]:
        return self._evaluation(self.data.validation)

    def test_dataloader(self) -> DataLoader[Item]:
        return self._evaluation(self.data.test)
