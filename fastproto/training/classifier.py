"""The LightningModule: a backbone and a head; and the trained one of a checkpoint."""

from __future__ import annotations

import math
import os

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from fastproto.data import DataSplits, Preprocessing
from fastproto.functional import check_batches
from fastproto.head import PrototypeHead, exclude_from_broadcast
from fastproto.models import build_backbone
from fastproto.training.build_head import Head, build_head
from fastproto.training.checkpoint_files import Description, PartFacts, rebuild_module
from fastproto.training.metrics import HeldOutMetrics, log_training_step
from fastproto.training.seeds import seed_of_step
from fastproto.training.settings import OptimConfig, TrainConfig

Batch = tuple[Tensor, Tensor]
LOOK_EVERY = 100  # steps between two looks at what the kernels left out: each waits for the device


class Classifier(L.LightningModule):
    """Backbone + head; images arrive as uint8 and are jittered and normalised on the device.

    Every step begins from its own seed, so that a run that goes on from a checkpoint draws the same random numbers as
    one that never stopped, and nothing about random generators needs to be saved.
    """

    backbone: nn.Module
    head: Head

    def __init__(
        self,
        config: TrainConfig,
        class_names: tuple[str, ...],
        preprocessing: Preprocessing,
        augmentation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config, self.class_names, self.preprocessing = config, class_names, preprocessing
        self.augmentation = None if config.data.augment == "none" else augmentation
        self.held_out = HeldOutMetrics()
        self.data_facts: dict[str, PartFacts] | None = None  # what checkpoints remember of the data
        self.shift = 0  # see position

    @classmethod
    def for_data(cls, config: TrainConfig, data: DataSplits) -> Classifier:
        return cls(config, data.class_names, data.preprocessing, data.augmentation)

    @property
    def description(self) -> Description:
        """What its checkpoints say of it."""
        return Description(self.config, self.class_names, self.preprocessing, self.data_facts)

    def configure_model(self) -> None:
        """Built here, not in the constructor: the process group is up, so rank 0 alone estimates prototypes."""
        if hasattr(self, "head"):
            return
        self.backbone = build_backbone(
            self.config.model.name,
            channels=self.preprocessing.channels,
            image_size=self.preprocessing.image_size,
            dim=self.config.head.dim,
        )
        self.head = build_head(self.config.head, self.class_names, self.config.seed)
        exclude_from_broadcast(self)

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, D] of uint8 images [B, channels, H, W]."""
        return self._features(images.float() / 255)

    def _features(self, pixels: Tensor) -> Tensor:
        dtype = next(self.backbone.parameters()).dtype  # bfloat16 where the precision is bf16-true
        features: Tensor = self.backbone(self.preprocessing.normalise(pixels).to(dtype))
        return features

    @property
    def position(self) -> int:
        """The step that schedules go by: epochs done times steps of an epoch as they are now, plus steps of this one.

        It is the global step, but for a run that goes on with batches of another size or on another number of devices.
        """
        return self.global_step + self.shift

    def on_train_start(self) -> None:
        """A checkpoint has brought the optimiser's settings of the time; those of this configuration hold."""
        trainer, optim = self.trainer, self.config.optim
        if self.global_step == 0:
            return
        self.shift = trainer.current_epoch * int(trainer.num_training_batches) - self.global_step
        optimizer, schedule = trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        schedule.base_lrs = [optim.lr for _ in optimizer.param_groups]
        for group, decay in zip(optimizer.param_groups, (optim.weight_decay, 0.0), strict=True):
            group["initial_lr"], group["weight_decay"] = optim.lr, decay
            group["lr"] = optim.lr * schedule.lr_lambdas[0](schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(seed_of_step(self.config.seed, self.global_step, self.global_rank))

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % LOOK_EVERY == 0:
            (self.head.check_batches if isinstance(self.head, PrototypeHead) else check_batches)()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        pixels = images.float() / 255
        if self.augmentation is not None:
            pixels = self.augmentation(pixels)
        loss: Tensor = self.head(self._features(pixels), labels)
        log_training_step(self, loss, samples=len(labels))
        return loss

    def _count(self, batch: Batch) -> None:
        images, labels = batch
        features = self(images)
        hits = self.head.predict(features, k=min(5, len(self.class_names))) == labels[:, None]
        loss = self.head(features, labels).double()
        if self.config.head.reduction == "mean":
            loss = loss * len(labels)
        self.held_out.add(hits, loss)

    def _held_out(self, prefix: str) -> dict[str, float]:
        return self.held_out.take(
            lambda sums: self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum"), prefix
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._count(batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._held_out("val"), prog_bar=True, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._count(batch)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._held_out("test"), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optim = self.config.optim
        steps = int(self.trainer.estimated_stepping_batches)
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": optim.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer: torch.optim.Optimizer
        if optim.name == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=optim.lr)
        else:
            optimizer = torch.optim.SGD(groups, lr=optim.lr, momentum=0.9, nesterov=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(optim, step + self.shift, steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def load_classifier(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Classifier:
    """The trained classifier of a checkpoint (or of a run folder: its best), in evaluation mode.

    Raises:
        FileNotFoundError, ValueError: as :func:`fastproto.training.checkpoint_files.rebuild_module`.
    """
    module, _ = rebuild_module(path, _unfilled)
    return module.to(device).eval()


def _unfilled(description: Description) -> Classifier:
    """The classifier of a description, without its weights."""
    module = Classifier(description.config, description.class_names, description.preprocessing)
    module.configure_model()
    return module


def learning_rate_factor(optim: OptimConfig, step: int, steps: int) -> float:
    """Factor on the highest learning rate at a step of ``steps``."""
    warmup = optim.warmup_epochs / optim.epochs * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    if optim.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if optim.schedule == "step":
        return float(0.1 ** sum(done >= milestone for milestone in optim.milestones))
    return 1.0
