"""The LightningModule of a backbone and a head, and the loader of a trained one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import replace

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from fastproto.data import DataSplits, Preprocessing
from fastproto.functional import check_batches
from fastproto.head import PrototypeHead, exclude_from_broadcast
from fastproto.models import build_backbone
from fastproto.support.checks import default_device
from fastproto.training.build_head import Head, build_head, resolved
from fastproto.training.checkpoint_files import Description, PartFacts, rebuild_module
from fastproto.training.class_weights import ClassWeights
from fastproto.training.metrics import HeldOutMetrics, log_training_step
from fastproto.training.mixing import Mixed, mix
from fastproto.training.pretrained import load_pretrained
from fastproto.training.seeds import seed_of_step
from fastproto.training.settings_and_flags import OptimConfig, TrainConfig

Batch = tuple[Tensor, Tensor]
CHECK_EVERY = 100  # steps between two calls of check_batches: each waits for the device


class Classifier(L.LightningModule):
    """Backbone + head; images arrive as uint8 and are augmented and normalised on the device.

    Every step sets its own seed: a resumed run draws the same random numbers as an uninterrupted one, and checkpoints
    need no state of random generators.
    """

    backbone: nn.Module
    head: Head

    def __init__(
        self,
        config: TrainConfig,
        class_names: tuple[str, ...],
        preprocessing: Preprocessing,
        augmentation: nn.Module | None = None,
        class_weights: ClassWeights | None = None,
    ) -> None:
        super().__init__()
        self.config, self.class_names, self.preprocessing = config, class_names, preprocessing
        self.augmentation = None if config.data.augment == "none" else augmentation
        self.class_weights = class_weights
        self.held_out = HeldOutMetrics()
        self.data_facts: dict[str, PartFacts] | None = None  # stored in checkpoints
        self.shift = 0  # from global_step to position
        self.pretrained = config.model.weights  # file of initial weights; None where a checkpoint brings the weights

    @classmethod
    def for_data(cls, config: TrainConfig, data: DataSplits) -> Classifier:
        weights = ClassWeights(config.optim, torch.bincount(data.train.labels, minlength=len(data.class_names)))
        return cls(config, data.class_names, data.preprocessing, data.augmentation, weights)

    @property
    def description(self) -> Description:
        """The description that its checkpoints store."""
        return Description(self.config, self.class_names, self.preprocessing, self.data_facts)

    def configure_model(self) -> None:
        """Build backbone and head here, where the process group exists: only rank 0 estimates prototypes."""
        if hasattr(self, "head"):
            return
        self.backbone = self._build_backbone()
        self.head = build_head(self.config.head, self.class_names, self.config.seed)
        self.config = replace(self.config, head=resolved(self.config.head, self.head))
        exclude_from_broadcast(self)

    def _build_backbone(self) -> nn.Module:
        """On the meta device no weights are read and nothing is compiled: a checkpoint will bring the weights."""
        config = self.config
        backbone = backbone_of(config, self.preprocessing)
        if config.channels_last:
            backbone = backbone.to(memory_format=torch.channels_last)
        if default_device().type == "meta":
            return backbone
        if self.pretrained is not None:
            load_pretrained(backbone, self.pretrained, config.model.name)
        if config.compile:
            backbone.compile(mode=config.compile_mode, dynamic=False)
        return backbone

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, D] of uint8 images [B, channels, H, W]."""
        return self._features(images.float() / 255)

    def _features(self, pixels: Tensor) -> Tensor:
        dtype = next(self.backbone.parameters()).dtype  # bfloat16 where the precision is bf16-true
        pixels = self.preprocessing.normalise(pixels).to(dtype)
        if self.config.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone(pixels)
        return features

    @property
    def position(self) -> int:
        """The step that schedules use: completed epochs times the current steps per epoch, plus steps of this epoch.

        It differs from the global step only if a run was resumed with another batch size or number of devices.
        """
        return self.global_step + self.shift

    def on_train_start(self) -> None:
        """Overwrite the optimiser settings that a checkpoint has restored with those of the configuration."""
        trainer, optim = self.trainer, self.config.optim
        if self.global_step == 0:
            return
        self.shift = trainer.current_epoch * int(trainer.num_training_batches) - self.global_step
        optimizer, schedule = trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        schedule.base_lrs = [optim.lr for _ in optimizer.param_groups]
        for group, decay in zip(optimizer.param_groups, (optim.weight_decay, 0.0), strict=True):
            group |= {"initial_lr": optim.lr, "weight_decay": decay}
            group["lr"] = optim.lr * schedule.lr_lambdas[0](schedule.last_epoch)
            if optim.name == "sgd":
                group |= {"momentum": optim.momentum, "nesterov": optim.nesterov}
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(seed_of_step(self.config.seed, self.global_step, self.global_rank))

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % CHECK_EVERY == 0:
            (self.head.check_batches if isinstance(self.head, PrototypeHead) else check_batches)()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        pixels = images.float() / 255
        if self.augmentation is not None:
            pixels = self.augmentation(pixels)
        mixed = None
        if self.config.optim.mixup > 0:
            pixels, mixed = mix(pixels, labels, self.config.optim.mixup)
        features = self._features(pixels)
        loss = self._loss(features, labels, mixed)
        log_training_step(self, loss, features, labels)
        return loss

    def _loss(self, features: Tensor, labels: Tensor, mixed: Mixed | None) -> Tensor:
        weight = None if self.class_weights is None else self.class_weights.of(labels, self.current_epoch)
        if mixed is None:
            loss: Tensor = self.head(features, labels, weight)
            return loss
        second = None if weight is None else weight[mixed.order]
        loss = self.head(features, labels, weight, labels2=labels[mixed.order], lam=mixed.share, weight2=second)
        return loss

    def _evaluate(self, batch: Batch) -> Tensor:
        """Add the batch to the metrics; return bool [B], whether the first prediction is the label."""
        images, labels = batch
        features = self(images)
        hits = self.head.predict(features, k=min(5, len(self.class_names))) == labels[:, None]
        loss = self.head(features, labels).double()
        if self.config.head.reduction == "mean":
            loss = loss * len(labels)
        self.held_out.add(hits, loss)
        return hits[:, 0]

    def _held_out_metrics(self, prefix: str) -> dict[str, float]:
        return self.held_out.take(
            lambda sums: self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum"), prefix
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._held_out_metrics("val"), prog_bar=True, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._held_out_metrics("test"), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optim = self.config.optim
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = optimizer_of(optim, self.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(optim, step + self.shift, steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def optimizer_of(optim: OptimConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a configuration; weight decay is for weights of two or more dimensions."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, lr=optim.lr)
    return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)


def load_classifier(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Classifier:
    """Load the trained classifier of a checkpoint, or of best.ckpt of a run folder, in evaluation mode.

    Raises:
        FileNotFoundError, ValueError: as :func:`fastproto.training.checkpoint_files.rebuild_module`.
    """
    module, _ = rebuild_module(path, _without_weights)
    return module.to(device).eval()


def _without_weights(description: Description) -> Classifier:
    """Build the classifier of a description, without the trained weights."""
    module = Classifier(description.config, description.class_names, description.preprocessing)
    module.configure_model()
    return module


def learning_rate_factor(optim: OptimConfig, step: int, steps: int) -> float:
    """Learning rate at step 0, 1, ... of ``steps``, as a fraction of ``optim.lr``."""
    warmup = optim.warmup_epochs / optim.epochs * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    if optim.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if optim.schedule == "step":
        passed = (step * optim.epochs >= m * steps if m >= 1 else done >= m for m in optim.milestones)
        return float(0.1 ** sum(passed))
    return 1.0


def backbone_of(config: TrainConfig, read: Preprocessing) -> nn.Module:
    """The backbone of a configuration for pictures that are prepared like these, with random weights."""
    return build_backbone(
        config.model.name,
        channels=read.channels,
        image_size=read.image_size,
        dim=config.head.dim,
        batchnorm=config.model.batchnorm,
    )
