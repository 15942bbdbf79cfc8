"""Builds the head that a configuration names, and reads the files that the head is made from."""

from __future__ import annotations

from dataclasses import asdict, replace
from pkgutil import resolve_name

import torch
from torch import Tensor

from fastproto.baselines import CosineHead, LinearHead, SoftmaxHead
from fastproto.head import PrototypeHead
from fastproto.prototypes import check_shape, load_prototypes, load_word_vectors
from fastproto.support.checks import default_device
from fastproto.support.loss_options import EQ6_POWER
from fastproto.training.checkpoint_files import rebuild_module
from fastproto.training.heads import FILES, HEADS, HeadKind
from fastproto.training.settings_and_flags import HeadConfig

Head = PrototypeHead | CosineHead
ClassNames = tuple[str, ...]


def build_head(config: HeadConfig, class_names: ClassNames, seed: int) -> Head:
    """The head that a configuration names.

    On the meta device no file is read: a checkpoint provides the content, and the file may no longer exist.

    Raises:
        ValueError: an unknown head, or a file or a dimension that does not fit.
        FileNotFoundError: a missing file.
    """
    if config.name not in HEADS:
        raise ValueError(f"head.name is {config.name!r}; expected one of {', '.join(HEADS)}")
    kind, meta = HEADS[config.name], default_device().type == "meta"
    read = {} if meta else _read_files(config, class_names)
    given = asdict(config) | {"seed": seed} | dict.fromkeys(FILES.values()) | read | _of_loss(config, kind, meta)
    head: Head = resolve_name(kind.made_by)(len(class_names), config.dim, **{name: given[name] for name in kind.takes})
    return head


def _of_loss(config: HeadConfig, kind: HeadKind, meta: bool) -> dict[str, object]:
    """The options of the loss where they differ from the settings."""
    changed: dict[str, object] = {}
    if "loss" in kind.takes and config.loss != "softmax":
        changed["scale"] = None
    if config.loss == "power" and config.power in (None, "auto"):
        changed["power"] = EQ6_POWER if meta else "auto"  # any number: auto needs the values of the prototypes
    return changed


def check_head(config: HeadConfig, class_names: ClassNames) -> None:
    """Raise the errors of :func:`build_head`, without estimating prototypes."""
    _read_files(config, class_names)
    with torch.device("meta"):
        build_head(config, class_names, seed=0)


def resolved(config: HeadConfig, head: Head) -> HeadConfig:
    """The settings with the number that ``head`` has for the power auto."""
    if isinstance(head, PrototypeHead) and config.loss == "power":
        return replace(config, power=head.form.power)
    return config


def _read_files(config: HeadConfig, class_names: ClassNames) -> dict[str, Tensor]:
    """Contents of the files that a configuration names, by the head option that each fills (see :data:`FILES`)."""
    found = {}
    if config.prototypes is not None:
        found[FILES["prototypes"]] = check_shape(load_prototypes(config.prototypes), len(class_names), config.dim)
    if config.words is not None:
        found[FILES["words"]] = load_word_vectors(config.words, class_names).vectors
    if config.trained is not None:
        found[FILES["trained"]] = _trained_weights(config.trained, class_names, config.dim)
    return found


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
