"""The settings of a run, as dataclasses; this module imports neither torch nor Lightning.

A field is an option of fastproto-train and a key of configuration files; the docstring of its class holds its help. A
resumed run refuses another value of a new field until :mod:`fastproto.training.resume_rules` has a rule for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from fastproto.support.data_options import Augment, augment_of
from fastproto.support.loss_options import Loss, Means, Power, Scale
from fastproto.support.options import Effort
from fastproto.training.heads import FILES, HeadName, heads_that_take
from fastproto.training.setting_ranges import RANGES, range_of
from fastproto.training.setting_types import from_mapping, plain, settings_of

InitialAssignment = Literal["auto", "random", "features", "aligned"]
ClassWeights = Literal["none", "in_batch", "inverse_frequency"]
LoggerName = Literal["csv", "tensorboard", "wandb"]


@dataclass
class DataConfig:
    """The images.

    Args:
        name: digits, glyphs, cifar10, cifar100, svhn, stl10, imagenet, imagenet200, imagenet-lt or image-folder.
        num_classes: number of classes to use (None: the set's own number).
        root: folder of the set (of image-folder: root/train/CLASS/*, root/val/CLASS/*).
        fonts: folder of font files for glyphs (None: those of matplotlib).
        image_size: side of the square images in pixels (None: the set's own).
        batch_size: samples per step and device.
        workers: processes that load images which do not lie in memory.
        augment: auto (what suits the set), none, jitter (small affine changes), crop_flip (pad by 4, crop, flip) or
            resized_crop (a random part of the image, resized and flipped); true is auto, false is none.
        lists: folder of the list files of imagenet-lt (None: root).
        download: whether cifar10, cifar100, svhn or stl10 is downloaded where it is not in root.
        validation: fraction of the training images held out where the set has no validation part (None: 0.1).
        imbalance: long tail of the training images: size of the last class over that of the first, in (0, 1] (None:
            all images).
        cache: whether image files are decoded once and kept in memory: true, false, or auto (up to 2 GiB).
    """

    name: str = "digits"
    num_classes: int | None = None
    root: str | None = None
    fonts: str | None = None
    image_size: int | None = None
    batch_size: int = 64
    workers: int = 0
    augment: Augment = "auto"
    lists: str | None = None
    download: bool = False
    validation: float | None = None
    imbalance: float | None = None
    cache: Literal["auto", "true", "false"] = "auto"

    def __setattr__(self, name: str, value: object) -> None:
        """``augment`` was true or false in earlier versions."""
        super().__setattr__(name, augment_of(value) if name == "augment" else value)


@dataclass
class ModelConfig:
    """The backbone.

    Args:
        name: mlp, cnn, resnet20, resnet32, resnet56 (also with -conv, or with -hpn for the shortcuts of hyperspherical
            prototype networks), any classification network of torchvision, or timm:NAME for one of timm.
        weights: file of pretrained weights of that network (.pth or .safetensors); its last layer is left out where it
            has another number of outputs.
        batchnorm: whether features pass a BatchNorm1d before they are normalised, as in runs on a long tail.
    """

    name: str = "cnn"
    weights: str | None = None
    batchnorm: bool = False


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
        effort: of that estimate: normal or best.
        words: for hpn: file of word vectors of the class names, whose similarities the prototypes follow.
        trained: for trained: run folder or checkpoint of a softmax run.
        scale: factor on the cosines before cross-entropy; fixed_softmax and the loss softmax also take norm, the length
            of the features.
        uniformity_weight: factor on L_uni in the loss of softmax_uniform.
        momentum: alpha of the class means, in [0, 1).
        loss: eq6 for the paper's (1 - cos)^2 / 2, power for (1 - cos)^P / P, softmax for cross-entropy over the
            prototypes, or official for the (1 - cos)^2 of the authors' code.
        power: P of the loss power, 0.01 to 100; 2 is eq6. None or auto: 2, 1.5 or 0.5, lower the closer the prototypes;
            config.yaml then has the number.
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
    effort: Effort = "normal"
    words: str | None = None
    trained: str | None = None
    scale: Scale = 16.0
    uniformity_weight: float = 1.0
    momentum: float = 0.9
    loss: Loss = "power"
    power: Power | None = None
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
        name: adamw or sgd.
        lr: peak learning rate.
        momentum: of sgd, in [0, 1).
        nesterov: whether that momentum is Nesterov's.
        weight_decay: of parameters with two or more dimensions; others have none.
        epochs: passes over the training set.
        warmup_epochs: epochs of linear warm-up; may be a fraction.
        schedule: cosine (to zero), step (a tenth at the milestones) or constant.
        milestones: when the step schedule lowers the learning rate: fractions (below 1) of the training after warm-up,
            or epochs.
        clip_norm: largest gradient norm (0: no clipping).
        mixup: b of mixup: images and labels of a batch are mixed in pairs, with a share from Beta(b, b) (0: none).
        class_weights: weight of a sample's loss: none, in_batch (samples of the batch / classes in it / samples of its
            class in it, over all devices) or inverse_frequency (the same over the training set, all classes counted).
        weights_from_epoch: epochs that are trained without those weights first.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.05
    epochs: int = 30
    warmup_epochs: float = 1.0
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: list[float] = field(default_factory=lambda: [0.4, 0.8])
    clip_norm: float = 0.0
    mixup: float = 0.0
    class_weights: ClassWeights = "none"
    weights_from_epoch: int = 0


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
        compile: whether torch.compile compiles the backbone.
        compile_mode: default, or reduce-overhead for CUDA graphs.
        channels_last: whether images and convolutions use the channels-last memory format.
        loggers: where metrics go: csv (always), tensorboard, wandb.
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
    compile: bool = False
    compile_mode: Literal["default", "reduce-overhead"] = "default"
    channels_last: bool = False
    loggers: list[LoggerName] = field(default_factory=lambda: ["csv"])
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
        for key, (least, most) in RANGES.items():
            value = self._get(key)
            if value not in (None, "norm", "auto") and not least <= value <= most:
                self._require(key, False, range_of(value, least, most))
        self._require("seed", 0 <= self.seed < 2**32, "0 <= seed < 2^32")
        self._require("optim.lr", self.optim.lr > 0, "a number > 0")
        validation, imbalance = self.data.validation, self.data.imbalance
        self._require("data.validation", validation is None or 0 < validation < 1, "0 < validation < 1")
        self._require("data.imbalance", imbalance is None or 0 < imbalance <= 1, "0 < imbalance <= 1")
        self._require("head.scale", self.head.scale == "norm" or self.head.scale > 0, "a number > 0")
        self._require("head.momentum", 0 <= self.head.momentum < 1, "0 <= momentum < 1")
        for key, kind, value in settings_of(self):
            self._require(key, kind.allows_choice(value), f"{kind.one_of} " + ", ".join(kind.choices))
        for name, option in FILES.items():
            heads = heads_that_take(option)
            unused = self._get(f"head.{name}") is not None and self.head.name not in heads
            self._require(f"head.{name}", not unused, f"none with head {self.head.name}: it is for {', '.join(heads)}")
        missing = self.head.name == "trained" and self.head.trained is None
        self._require("head.trained", not missing, "the run folder or a checkpoint of a softmax run")
        self._check_loss()
        self._check_optim()

    def _check_optim(self) -> None:
        optim = self.optim
        self._require("optim.momentum", 0 <= optim.momentum < 1, "0 <= momentum < 1")
        still = optim.name == "sgd" and optim.nesterov and optim.momentum == 0
        self._require("optim.nesterov", not still, "false where optim.momentum is 0")
        inside = all(0 < m < max(optim.epochs, 1) for m in optim.milestones)
        self._require("optim.milestones", inside, f"parts between 0 and 1, or epochs below optim.epochs {optim.epochs}")
        self._require("optim.mixup", optim.mixup == 0 or optim.mixup >= 0.001, "0 for none, or at least 0.001")
        unused = optim.class_weights == "none" and optim.weights_from_epoch > 0
        self._require("optim.weights_from_epoch", not unused, "0 where optim.class_weights is none")

    def _check_loss(self) -> None:
        """Raise ValueError for a power or the scale norm with a head or a loss that has none."""
        head = self.head
        has_loss = head.name in heads_that_take("loss")
        powered, softmax = has_loss and head.loss == "power", has_loss and head.loss == "softmax"
        without = "none: it is for head.loss power (--head.power null)"
        self._require("head.power", powered or head.power is None, without)
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
