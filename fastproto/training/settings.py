"""Everything a run can be told, as dataclasses that import neither torch nor Lightning.

A field is a flag of fastproto-train and a key of configuration files; its help is in the docstring. A new one is
refused where a run is resumed with another value, until :mod:`fastproto.training.resume_rules` says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from fastproto.support.loss_options import Loss, Means
from fastproto.support.options import Effort
from fastproto.training.heads import FILES, HeadName, heads_that_take
from fastproto.training.setting_types import EXPECTED, from_mapping, plain, settings_of

InitialAssignment = Literal["auto", "random", "features", "aligned"]


@dataclass
class DataConfig:
    """The images.

    Args:
        name: digits, glyphs or image-folder.
        num_classes: how many classes of the set to use (None: the set's own number).
        root: folder of an image-folder set (root/train/CLASS/*, root/val/CLASS/*).
        fonts: folder of font files for glyphs (None: those inside matplotlib).
        image_size: side of the square images in pixels (None: the set's own).
        batch_size: samples of one step on one device.
        workers: processes that read images; 0 suits the sets that lie in memory.
        augment: whether training images are jittered.
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
    """What turns features into a loss and predictions.

    Args:
        name: prototype (the paper's), fixed (the same, first assignment kept), softmax (learned rows, cross-entropy of
            cosines), softmax_uniform (the same, rows kept apart), linear (the usual last layer), fixed_softmax (our
            prototypes, cross-entropy), etf (a simplex, dot regression), hpn (far-apart prototypes, squared cosine
            distance) or trained (rows of a softmax run as prototypes).
        dim: dimension D of the metric space.
        prototypes: file of prototypes to use (None: estimated and cached).
        effort: normal or best, of that estimate.
        words: word vectors of the class names, for prototypes of hpn that are ordered like them.
        trained: run folder or checkpoint of a softmax run, for trained.
        scale: factor on the cosines under cross-entropy.
        uniformity_weight: factor on L_uni in softmax_uniform.
        momentum: alpha of the class means, in [0, 1).
        loss: eq6, or official for the authors' (1 - cos)^2.
        means: ema, or official for the authors' class means.
        reduction: mean or sum over the batch.
        sync_class_means: whether class means count the samples of all devices; if not, nothing of them is sent, and
            those of the first device decide.
        initial_assignment: random, features (each label where the untrained backbone's features of it are) or aligned
            (the same, and the prototypes are turned towards them); of prototype and fixed heads. auto is aligned for
            prototype from 100 classes on, which helps where these are many for D, else, and with anything official, the
            paper's random.
        initial_samples: training images of each class that features and aligned look at.
        renewals_per_epoch: how often the assignment is renewed in an epoch; any fraction, 0 for never.
        early_epochs: epochs (or a part of one) at the start with a rate of their own.
        early_renewals_per_epoch: that rate.
        early_alignment: whether the early renewals turn the prototypes too.
        assign_async: solve a renewal in a thread while steps go on; results may then differ from run to run.
        save_class_means: keep class means, prototypes and assignment of every renewal in RUN/class_means.
    """

    name: HeadName = "prototype"
    dim: int = 5
    prototypes: str | None = None
    effort: Effort = "normal"
    words: str | None = None
    trained: str | None = None
    scale: float = 16.0
    uniformity_weight: float = 1.0
    momentum: float = 0.9
    loss: Loss = "eq6"
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
    """How the backbone is trained.

    Args:
        name: adamw or sgd (Nesterov momentum 0.9).
        lr: highest learning rate.
        weight_decay: on weights of two or more dimensions only.
        epochs: passes over the training set.
        warmup_epochs: epochs (or a part of one) of linear warm-up.
        schedule: cosine (to zero), step (a tenth at the milestones) or constant.
        milestones: parts of the training after which the rate of the step schedule falls.
        clip_norm: largest norm of the gradient (0: no clipping).
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
    """Train a hyperspherical classifier (Saadabadi et al., CVPR 2024).

    Args:
        data: the images.
        model: the backbone.
        head: the loss and the prototypes.
        optim: how the backbone is trained.
        seed: of the weights, the order of the samples, the jitter and the first assignment.
        accelerator: auto, cpu or gpu.
        devices: how many devices to train on.
        num_nodes: how many machines.
        precision: 32-true, bf16-mixed, 16-mixed or bf16-true.
        out: run folder (None: runs/NAME, numbered where it exists).
        name: name of the run (None: that of the data set).
        resume: run folder or checkpoint to go on from.
        progress: whether a progress bar is drawn.
        deterministic: same bits on every run of one machine.
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
        """Plain values that YAML and a checkpoint can hold: a path is its text, a number of NumPy a Python one."""
        return cast(dict[str, Any], plain(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The reverse of ``to_dict``; an unknown key is an error that names the nearest known one."""
        return from_mapping(cls, values)

    def check(self) -> None:
        """Raise ValueError, in one sentence, for a value that no run could use."""
        for key, kind, value in settings_of(self):
            self._require(key, kind.allows(value), EXPECTED[kind.kind])
        for key, (least, most) in _RANGES.items():
            value = self._get(key)
            if value is not None and not least <= value <= most:
                self._require(key, False, _range_of(value, least, most))
        self._require("seed", 0 <= self.seed < 2**32, "0 <= seed < 2^32")
        self._require("optim.lr", self.optim.lr > 0, "a number > 0")
        self._require("head.scale", self.head.scale > 0, "a number > 0")
        self._require("head.momentum", 0 <= self.head.momentum < 1, "0 <= momentum < 1")
        for key, kind, value in settings_of(self):
            self._require(key, not kind.choices or value in kind.choices, "one of " + ", ".join(kind.choices))
        for name, option in FILES.items():
            heads = heads_that_take(option)
            unused = self._get(f"head.{name}") is not None and self.head.name not in heads
            self._require(f"head.{name}", not unused, f"none with head {self.head.name}: it is for {', '.join(heads)}")
        missing = self.head.name == "trained" and self.head.trained is None
        self._require("head.trained", not missing, "the run folder or a checkpoint of a softmax run")
        self._require("optim.milestones", all(0 < m < 1 for m in self.optim.milestones), "fractions between 0 and 1")

    def _get(self, key: str) -> Any:
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value

    def _require(self, key: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{key} is {self._get(key)!r}; expected {expected}")


_MANY, _LARGE = 2**31 - 1, 1e15  # as float32, products of two large ones are finite still
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
    "head.uniformity_weight": (0, _LARGE),
    "head.renewals_per_epoch": (0, _LARGE),
    "head.early_epochs": (0, _LARGE),
    "head.early_renewals_per_epoch": (0, _LARGE),
}


def _range_of(value: float, least: float, most: float) -> str:
    """What is expected instead of a value outside of its range."""
    if value != value or abs(value) == math.inf:  # not math.isfinite: an int may be too large for it
        return "a finite number"
    return f"at most {most:g}" if value > most else f"at least {least}"
