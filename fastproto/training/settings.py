"""The settings of a run, as dataclasses; this module imports neither torch nor Lightning.

A field is an option of fastproto-train and a key of configuration files; the docstring of its class holds its help. A
resumed run refuses another value of a new field until :mod:`fastproto.training.resume_rules` has a rule for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from fastproto.support.loss_options import POWERS, Loss, Means, Scale
from fastproto.training.heads import FILES, HeadName, heads_that_take
from fastproto.training.setting_types import from_mapping, plain, settings_of

InitialAssignment = Literal["auto", "random", "features", "aligned"]


@dataclass
class DataConfig:
    """The images.

    Args:
        name: digits, glyphs or image-folder.
        num_classes: number of classes to use (None: the set's own number).
        root: folder of an image-folder set (root/train/CLASS/*, root/val/CLASS/*).
        fonts: folder of font files for glyphs (None: those of matplotlib).
        image_size: side of the square images in pixels (None: the set's own).
        batch_size: samples per step and device.
        workers: processes that load images; 0 suits data sets that lie in memory.
        augment: whether training images are augmented (jitter).
    """

    name: str = "digits"
    num_classes: int | None = None
    root: str | None = None
    fonts: str | None = None
    image_size: int | None = None
    batch_size: int = 64
    workers: int = 0
    augment: bool = True


@dataclass
class ModelConfig:
    """The backbone.

    Args:
        name: mlp, cnn, resnet20, resnet32, resnet56 (also with -conv), or any classification network of torchvision.
    """

    name: str = "cnn"


@dataclass
class HeadConfig:
    """The head, which turns features into a loss and predictions.

    Args:
        name: prototype (the paper's), fixed (the same, assignment never renewed), softmax (learned weights,
            cross-entropy of cosines), softmax_uniform (the same, with L_uni of the weights added), linear (the usual
            last layer), fixed_softmax (as fixed with the loss softmax), etf (a simplex, dot-regression loss), hpn
            (separated prototypes, squared cosine distance) or trained (weights of a softmax run as prototypes).
        dim: dimension D of the metric space.
        prototypes: file of prototypes to use (None: estimated and cached).
        words: for hpn: file of word vectors of the class names, whose similarities the prototypes follow.
        trained: for trained: run folder or checkpoint of a softmax run.
        scale: factor on the cosines before cross-entropy; fixed_softmax and the loss softmax also take norm, the length
            of the features.
        uniformity_weight: factor on L_uni in the loss of softmax_uniform.
        momentum: alpha of the class means, in [0, 1).
        loss: eq6 for the paper's (1 - cos)^2 / 2, power for (1 - cos)^P / P, softmax for cross-entropy over the
            prototypes, or official for the (1 - cos)^2 of the authors' code.
        power: P of the loss power, 0.01 to 100; 2 is eq6.
        means: ema, or official for the class means of the authors' code.
        reduction: mean or sum over the batch.
        sync_class_means: whether class means use the samples of all devices; if not, none are communicated, and the
            assignment follows the class means of the first device.
        initial_assignment: for prototype and fixed: random (the paper's), features (each label near its features in the
            untrained backbone) or aligned (the same, with the prototypes rotated towards the features). auto is aligned
            for prototype from 100 classes on if neither loss nor means is official, otherwise random.
        initial_samples: training images per class that features and aligned use.
        renewals_per_epoch: renewals of the assignment per epoch; any fraction, 0 for none.
        early_epochs: length in epochs, which may be a fraction, of a first phase with its own renewal rate.
        early_renewals_per_epoch: renewals per epoch in that phase.
        early_alignment: whether renewals in that phase also rotate the prototypes.
        assign_async: whether a thread solves renewals while training continues; results may then vary between runs.
        save_class_means: whether to save class means, prototypes and assignment at every renewal, in RUN/class_means.
    """

    name: HeadName = "prototype"
    dim: int = 5
    prototypes: str | None = None
    words: str | None = None
    trained: str | None = None
    scale: Scale = 16.0
    uniformity_weight: float = 1.0
    momentum: float = 0.9
    loss: Loss = "eq6"
    power: float | None = None
    means: Means = "ema"
    reduction: Literal["mean", "sum"] = "mean"
    sync_class_means: bool = True
    initial_assignment: InitialAssignment = "auto"
    initial_samples: int = 20
    renewals_per_epoch: float = 1.0
    early_epochs: float = 0.0
    early_renewals_per_epoch: float = 10.0
    early_alignment: bool = False
    assign_async: bool = False
    save_class_means: bool = False


@dataclass
class OptimConfig:
    """The optimiser and the learning-rate schedule.

    Args:
        name: adamw or sgd (Nesterov momentum 0.9).
        lr: peak learning rate.
        weight_decay: of parameters with two or more dimensions; others have none.
        epochs: passes over the training set.
        warmup_epochs: epochs of linear warm-up; may be a fraction.
        schedule: cosine (to zero), step (a tenth at the milestones) or constant.
        milestones: fractions of the training after warm-up at which the step schedule lowers the learning rate.
        clip_norm: largest gradient norm (0: no clipping).
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-2
    weight_decay: float = 0.05
    epochs: int = 30
    warmup_epochs: float = 1.0
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: list[float] = field(default_factory=lambda: [0.4, 0.8])
    clip_norm: float = 0.0


@dataclass
class TrainConfig:
    """All settings of a run that trains a hyperspherical classifier (Saadabadi et al., CVPR 2024).

    Args:
        data: the images.
        model: the backbone.
        head: the head with its loss.
        optim: the optimiser and the learning-rate schedule.
        seed: seed of the weights, the order of the samples, the augmentation and the initial assignment.
        accelerator: auto, cpu or gpu.
        devices: number of devices per machine.
        num_nodes: number of machines.
        precision: 32-true, bf16-mixed, 16-mixed or bf16-true.
        out: run folder (None: runs/NAME, with a number appended if it exists).
        name: name of the run (None: that of the data set).
        resume: run folder or checkpoint to continue from.
        progress: whether to draw a progress bar.
        deterministic: whether runs on one machine give the same bits.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    seed: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    out: str | None = None
    name: str | None = None
    resume: str | None = None
    progress: bool = True
    deterministic: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts that YAML and a checkpoint can hold: paths are text, NumPy numbers Python numbers."""
        return cast(dict[str, Any], plain(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of ``to_dict``; keys may be missing.

        Raises:
            ValueError: an unknown key (the message names the nearest known one), or a group that is not a mapping.
        """
        return from_mapping(cls, values)

    def check(self) -> None:
        """Raise ValueError for a value that no run can use."""
        for key, kind, value in settings_of(self):
            self._require(key, kind.allows(value), kind.expected)
        for key, (least, most) in _RANGES.items():
            value = self._get(key)
            if value not in (None, "norm") and not least <= value <= most:
                self._require(key, False, _range_of(value, least, most))
        self._require("seed", 0 <= self.seed < 2**32, "0 <= seed < 2^32")
        self._require("optim.lr", self.optim.lr > 0, "a number > 0")
        self._require("head.scale", self.head.scale == "norm" or self.head.scale > 0, "a number > 0")
        self._require("head.momentum", 0 <= self.head.momentum < 1, "0 <= momentum < 1")
        for key, kind, value in settings_of(self):
            self._require(key, not kind.choices or value in kind.choices, "one of " + ", ".join(kind.choices))
        for name, option in FILES.items():
            heads = heads_that_take(option)
            unused = self._get(f"head.{name}") is not None and self.head.name not in heads
            self._require(f"head.{name}", not unused, f"none with head {self.head.name}: it is for {', '.join(heads)}")
        missing = self.head.name == "trained" and self.head.trained is None
        self._require("head.trained", not missing, "the run folder or a checkpoint of a softmax run")
        self._check_loss()
        self._require("optim.milestones", all(0 < m < 1 for m in self.optim.milestones), "fractions between 0 and 1")

    def _check_loss(self) -> None:
        """Raise ValueError for a power or the scale norm with a head or a loss that has none."""
        head = self.head
        has_loss = head.name in heads_that_take("loss")
        powered, softmax = has_loss and head.loss == "power", has_loss and head.loss == "softmax"
        self._require("head.power", powered or head.power is None, "none: it is for head.loss power")
        self._require(
            "head.power", head.power is not None or not powered, "an exponent such as 0.5 for head.loss power"
        )
        by_norm = softmax or head.name == "fixed_softmax" or head.scale != "norm"
        self._require("head.scale", by_norm, "a number: norm is for fixed_softmax and head.loss softmax")

    def _get(self, key: str) -> Any:
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value

    def _require(self, key: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{key} is {self._get(key)!r}; expected {expected}")


_MANY, _LARGE = 2**31 - 1, 1e15  # the product of two _LARGE numbers is finite in float32
_RANGES = {
    "data.num_classes": (2, _MANY),
    "data.image_size": (8, 2**15),
    "data.batch_size": (1, _MANY),
    "data.workers": (0, 2**12),
    "head.dim": (2, _MANY),
    "head.initial_samples": (1, _MANY),
    "optim.epochs": (1, _MANY),
    "devices": (1, 2**16),
    "num_nodes": (1, 2**16),
    "optim.lr": (0, _LARGE),
    "optim.weight_decay": (0, _LARGE),
    "optim.warmup_epochs": (0, _LARGE),
    "optim.clip_norm": (0, _LARGE),
    "head.scale": (0, _LARGE),
    "head.power": POWERS,
    "head.uniformity_weight": (0, _LARGE),
    "head.renewals_per_epoch": (0, _LARGE),
    "head.early_epochs": (0, _LARGE),
    "head.early_renewals_per_epoch": (0, _LARGE),
}


def _range_of(value: float, least: float, most: float) -> str:
    """The expectation that the error states for a value outside its range."""
    if value != value or abs(value) == math.inf:  # not math.isfinite: an int may be too large for it
        return "a finite number"
    return f"at most {most:g}" if value > most else f"at least {least}"
