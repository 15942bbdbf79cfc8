"""Whether a setting may differ when a run is resumed. A setting that is not named here is refused."""

from __future__ import annotations

from enum import Enum


class Rule(Enum):
    """What happens to a setting that differs from that of the earlier run."""

    TAKEN = "the new value applies from here on"
    DATA = "the value may differ as long as the data are the same"
    REFUSED = "the state in the checkpoint depends on the value"


RULES = {
    "data.name": Rule.DATA,
    "data.num_classes": Rule.DATA,
    "data.root": Rule.DATA,
    "data.fonts": Rule.DATA,
    "data.image_size": Rule.DATA,
    "data.batch_size": Rule.TAKEN,
    "data.workers": Rule.TAKEN,
    "data.augment": Rule.TAKEN,
    "data.lists": Rule.DATA,
    "data.download": Rule.TAKEN,
    "data.validation": Rule.DATA,
    "data.imbalance": Rule.DATA,
    "data.cache": Rule.TAKEN,
    "model.name": Rule.REFUSED,
    "model.weights": Rule.REFUSED,
    "model.batchnorm": Rule.REFUSED,
    "head.name": Rule.REFUSED,
    "head.dim": Rule.REFUSED,
    "head.prototypes": Rule.REFUSED,
    "head.effort": Rule.REFUSED,
    "head.words": Rule.REFUSED,
    "head.trained": Rule.REFUSED,
    "head.scale": Rule.TAKEN,
    "head.uniformity_weight": Rule.TAKEN,
    "head.momentum": Rule.TAKEN,
    "head.loss": Rule.TAKEN,
    "head.power": Rule.TAKEN,
    "head.means": Rule.REFUSED,
    "head.reduction": Rule.TAKEN,
    "head.sync_class_means": Rule.TAKEN,
    "head.initial_assignment": Rule.REFUSED,
    "head.initial_samples": Rule.REFUSED,
    "head.renewals_per_epoch": Rule.TAKEN,
    "head.early_epochs": Rule.REFUSED,
    "head.early_renewals_per_epoch": Rule.REFUSED,
    "head.early_alignment": Rule.REFUSED,
    "head.assign_async": Rule.TAKEN,
    "head.save_class_means": Rule.TAKEN,
    "optim.name": Rule.REFUSED,
    "optim.momentum": Rule.TAKEN,
    "optim.nesterov": Rule.TAKEN,
    "optim.lr": Rule.TAKEN,
    "optim.weight_decay": Rule.TAKEN,
    "optim.epochs": Rule.TAKEN,
    "optim.warmup_epochs": Rule.TAKEN,
    "optim.schedule": Rule.TAKEN,
    "optim.milestones": Rule.TAKEN,
    "optim.clip_norm": Rule.TAKEN,
    "optim.mixup": Rule.TAKEN,
    "optim.class_weights": Rule.TAKEN,
    "optim.weights_from_epoch": Rule.TAKEN,
    "seed": Rule.REFUSED,
    "accelerator": Rule.TAKEN,
    "devices": Rule.TAKEN,
    "num_nodes": Rule.TAKEN,
    "precision": Rule.REFUSED,
    "compile": Rule.TAKEN,
    "compile_mode": Rule.TAKEN,
    "channels_last": Rule.TAKEN,
    "loggers": Rule.TAKEN,
    "out": Rule.TAKEN,
    "name": Rule.REFUSED,
    "resume": Rule.TAKEN,
    "progress": Rule.TAKEN,
    "deterministic": Rule.TAKEN,
}
# Without effect on training: changes are not reported.
SILENT = ("out", "name", "resume", "progress", "loggers", "data.workers", "data.download", "data.cache")
PATHS = ("data.root", "data.fonts", "data.lists", "model.weights", "head.prototypes", "head.words", "head.trained")


def rule_of(key: str) -> Rule:
    """The rule of a setting, given its flat key such as ``optim.lr``."""
    return RULES.get(key, Rule.REFUSED)
