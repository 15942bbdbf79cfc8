"""Data loaders of a run."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from fastproto.data import DataSplits, collate
from fastproto.training.batch_checks import check_share
from fastproto.training.config import TrainConfig


class Loaders(L.LightningDataModule):
    """Loaders whose order depends on the seed and the epoch alone; held-out samples are seen once over all ranks."""

    def __init__(self, config: TrainConfig, data: DataSplits) -> None:
        super().__init__()
        self.config, self.data = config, data

    def _loader(self, dataset: Dataset[Any], sampler: Any) -> DataLoader[Any]:
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

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        sampler: DistributedSampler[Any] = DistributedSampler(
            self.data.train, trainer.world_size, trainer.global_rank, shuffle=True, seed=self.config.seed
        )
        return self._loader(self.data.train, sampler)

    def _evaluation(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        count = len(dataset)  # type: ignore[arg-type]  # ours have a length; torch's base class does not say so
        check_share(count, "held-out", trainer.world_size)
        return self._loader(dataset, range(trainer.global_rank, count, trainer.world_size))

    def val_dataloader(self) -> DataLoader[Any]:
        return self._evaluation(self.data.validation)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._evaluation(self.data.test)
