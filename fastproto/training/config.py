"""Everything a run can be told, as dataclasses that import neither torch nor Lightning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

HEADS = ("prototype", "fixed", "softmax", "softmax_uniform", "linear", "fixed_softmax", "etf", "hpn", "trained")
RENEWED_HEADS = ("prototype", "trained")  # those whose assignment is renewed during training
FILES_OF_HEADS = {
    "prototypes": ("prototype", "fixed", "fixed_softmax", "hpn"),
    "words": ("hpn",),
    "trained": ("trained",),
}
INITIAL_ASSIGNMENTS = ("auto", "random", "features", "aligned")
EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "floats": "numbers such as [0.4, 0.8]",
}


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

    name: str = "prototype"
    dim: int = 5
    prototypes: str | None = None
    words: str | None = None
    trained: str | None = None
    scale: float = 16.0
    uniformity_weight: float = 1.0
    momentum: float = 0.9
    loss: str = "eq6"
    means: str = "ema"
    reduction: str = "mean"
    sync_class_means: bool = True
    initial_assignment: str = "auto"
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

    name: str = "adamw"
    lr: float = 1e-2
    weight_decay: float = 0.05
    epochs: int = 30
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
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
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    out: str | None = None
    name: str | None = None
    resume: str | None = None
    progress: bool = True
    deterministic: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain values that YAML and a checkpoint can hold: a path is its text, a number of NumPy a Python one."""
        values: dict[str, Any] = _plain(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The reverse of ``to_dict``; an unknown key is an error that names the nearest known one."""
        config: TrainConfig = _from_dict(cls, values, "")
        return config

    def check(self) -> None:
        """Raise ValueError, in one sentence, for a value that no run could use."""
        _check_types(self, "")
        for key, (least, most) in _RANGES.items():
            value = self._get(key)
            if value is not None and not least <= value <= most:
                expected = f"at most {most:g}" if value > most else f"at least {least}"
                self._require(key, False, expected)
        self._require("seed", 0 <= self.seed < 2**32, "0 <= seed < 2^32")
        self._require("optim.lr", self.optim.lr > 0, "a number > 0")
        self._require("head.scale", self.head.scale > 0, "a number > 0")
        self._require("head.momentum", 0 <= self.head.momentum < 1, "0 <= momentum < 1")
        for key, choices in _CHOICES.items():
            self._require(key, self._get(key) in choices, "one of " + ", ".join(choices))
        for name, heads in FILES_OF_HEADS.items():
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
_CHOICES = {
    "head.name": HEADS,
    "head.initial_assignment": INITIAL_ASSIGNMENTS,
    "head.loss": ("eq6", "official"),
    "head.means": ("ema", "official"),
    "head.reduction": ("mean", "sum"),
    "optim.name": ("adamw", "sgd"),
    "optim.schedule": ("cosine", "step", "constant"),
    "accelerator": ("auto", "cpu", "gpu"),
    "precision": ("32-true", "bf16-mixed", "16-mixed", "bf16-true"),
}


def _check_types(config: Any, prefix: str) -> None:
    for one in fields(config):
        value, kind = getattr(config, one.name), str(one.type)
        if is_dataclass(value):
            _check_types(value, f"{prefix}{one.name}.")
            continue
        if value is None and kind.endswith(" | None"):
            continue
        kind = {"list[float]": "floats"}.get(kind, kind.removesuffix(" | None"))
        if not _is_a(value, kind):
            raise ValueError(f"{prefix}{one.name} is {value!r}; expected {EXPECTED.get(kind, kind)}")


def _is_a(value: Any, kind: str) -> bool:
    if kind == "floats":
        return isinstance(value, list | tuple) and all(_is_a(part, "float") for part in value)
    if kind == "str":
        return isinstance(value, str | os.PathLike) and str(value).strip() != "" and "\0" not in str(value)
    if kind in ("int", "float"):
        return isinstance(value, Integral if kind == "int" else Real) and not isinstance(value, bool)
    return isinstance(value, bool) if kind == "bool" else False


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return str(value)


def _from_dict(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    known = {f.name: f for f in fields(cls)}
    filled = {}
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(prefix + k for k in known)}"
            raise ValueError(f"unknown configuration key {prefix}{key}; {hint}")
        factory = known[key].default_factory
        if is_dataclass(factory):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{key} is {value!r}; expected a group of settings such as {prefix}{key}.name")
            value = _from_dict(factory, value, f"{prefix}{key}.")
        filled[key] = value
    return cls(**filled)
