"""From the configuration to a head, and the files that one may be made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from fastproto.baselines import (
    CosineHead,
    ETFHead,
    FixedHead,
    FixedSoftmaxHead,
    HPNHead,
    LinearHead,
    SoftmaxHead,
    SoftmaxUniformHead,
    TrainedPrototypesHead,
)
from fastproto.head import PrototypeHead
from fastproto.prototypes import check_shape, load_prototypes, load_word_vectors
from fastproto.support.checks import default_device
from fastproto.support.loss_options import Loss, Means, Reduction
from fastproto.training.checkpoint_files import rebuild_module
from fastproto.training.head_names import HEADS
from fastproto.training.settings import HeadConfig

Head = PrototypeHead | CosineHead
ClassNames = tuple[str, ...]


def build_head(config: HeadConfig, class_names: ClassNames, seed: int) -> Head:
    """The head that a configuration names.

    On the meta device no file is read: a checkpoint will bring what was once in it, and it need not exist any more.

    Raises:
        ValueError, FileNotFoundError: a file or a dimension that does not fit, or a file that is missing.
    """
    files = _Files() if default_device().type == "meta" else _read_files(config, class_names)
    count, dim, reduction = len(class_names), config.dim, config.reduction
    ours: _Options = {
        "momentum": config.momentum,
        "loss": config.loss,
        "means": config.means,
        "reduction": reduction,
        "sync_class_means": config.sync_class_means,
        "seed": seed,
    }
    match config.name:
        case "prototype":
            return PrototypeHead(count, dim, prototypes=files.prototypes, **ours)
        case "fixed":
            return FixedHead(count, dim, prototypes=files.prototypes, **ours)
        case "trained":
            return TrainedPrototypesHead(count, dim, weights=files.trained, **ours)
        case "softmax":
            return SoftmaxHead(count, dim, scale=config.scale, reduction=reduction)
        case "softmax_uniform":
            return SoftmaxUniformHead(
                count, dim, uniformity_weight=config.uniformity_weight, scale=config.scale, reduction=reduction
            )
        case "linear":
            return LinearHead(count, dim, reduction=reduction)
        case "fixed_softmax":
            return FixedSoftmaxHead(
                count, dim, prototypes=files.prototypes, scale=config.scale, reduction=reduction, seed=seed
            )
        case "etf":
            return ETFHead(count, dim, reduction=reduction, seed=seed)
        case "hpn":
            return HPNHead(
                count, dim, prototypes=files.prototypes, word_vectors=files.words, reduction=reduction, seed=seed
            )
    raise ValueError(f"head.name is {config.name!r}; expected one of {', '.join(HEADS)}")


def check_head(config: HeadConfig, class_names: ClassNames) -> None:
    """Raise what :func:`build_head` would, without estimating anything."""
    _read_files(config, class_names)
    with torch.device("meta"):
        build_head(config, class_names, seed=0)


class _Options(TypedDict):
    """What the heads with class means have in common."""

    momentum: float
    loss: Loss
    means: Means
    reduction: Reduction
    sync_class_means: bool
    seed: int


@dataclass(frozen=True)
class _Files:
    prototypes: Tensor | None = None  # [C, D]
    words: Tensor | None = None  # [C, any]
    trained: Tensor | None = None  # [C, D]


def _read_files(config: HeadConfig, class_names: ClassNames) -> _Files:
    prototypes = words = trained = None
    if config.prototypes is not None:
        prototypes = check_shape(load_prototypes(config.prototypes), len(class_names), config.dim)
    if config.words is not None:
        words = load_word_vectors(config.words, class_names).vectors
    if config.trained is not None:
        trained = _trained_weights(config.trained, class_names, config.dim)
    return _Files(prototypes, words, trained)


def _trained_weights(path: str, class_names: ClassNames, dim: int) -> Tensor:
    head, run = rebuild_module(
        path, lambda run: build_head(run.config.head, run.class_names, run.config.seed), prefix="head."
    )
    if not isinstance(head, SoftmaxHead | LinearHead):
        raise ValueError(
            f"head.trained is {path}, a run with head {run.config.head.name}; expected one whose rows were "
            "learned: softmax, softmax_uniform or linear"
        )
    if run.class_names != class_names or head.dim != dim:
        raise ValueError(
            f"head.trained is {path}, a run with {len(run.class_names)} classes in {head.dim} dimensions; "
            f"expected the same {len(class_names)} classes, in the same order, in {dim}: train it on the same data"
        )
    return head.weight_by_label().detach()
