"""Reads the authors' YAML files as settings of a run. Imports neither torch nor Lightning."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastproto.support.spelling import nearest, shown
from fastproto.training.config_files import is_null, read_mapping

Values = dict[str, Any]
LONG_TAILED = {
    "cifar10LT": "cifar10",
    "cifar100LT": "cifar100",
    "stl10LT": "stl10",
    "svhnLT": "svhn",
    "imagenetLT": "imagenet-lt",
}
BALANCED = ("cifar100", "imagenet200")
DATASETS = (*BALANCED, "imagenet", *LONG_TAILED)
BACKBONES = {
    "ResNet": "resnet32-hpn",
    "resnet32_fe": "resnet32",
    "resnet32_fe_c100": "resnet32",
    "resnet50": "resnet50",
    "resnet50_fe": "resnet50",
    "swin_tiny_patch4_window7_224": "swin_t",
}
# Of their code, read where a key is missing in a file.
DEFAULTS: Values = {
    "dataset": "cifar100",
    "num_classes": 100,
    "imb_factor": 0.01,
    "backbone": "ResNet",
    "fixed_classifier": False,
    "space_dim": 25,
    "lr": 0.1,
    **dict.fromkeys(("drop1", "drop2", "drop3"), -1),
    "batch_size": 128,
    "weight_decay": 0.002,
    "num_epochs": 200,
    "momentum": 0.9,
    "alpha": 1.0,
    "reg_lam": 0.0,
    "warmup_epochs": -1,
    "deterministic": True,
}


def _text(value: Any) -> str:
    """A scalar; the value of a list is a list of nodes."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    **dict.fromkeys(("name", "dataset", "data_path", "backbone", "centroid_path"), (_text, "a text")),
    **dict.fromkeys(
        (
            *("workers", "num_classes", "space_dim", "crop_size", "batch_size", "num_epochs", "warmup_epochs"),
            *("drop1", "drop2", "drop3"),
        ),
        (int, "a whole number"),
    ),
    **dict.fromkeys(("imb_factor", "lr", "weight_decay", "momentum", "alpha", "reg_lam"), (float, "a number")),
    **dict.fromkeys(("fixed_classifier", "deterministic"), (_flag, "True or False")),
}
OPTIONAL = ("name", "data_path", "centroid_path")  # may be null
# Known to their code and without a counterpart here: files, devices and reports, and keys that it never reads.
WITHOUT_EFFECT = (
    *("print_freq", "log_dir", "model_dir", "gpu", "head_class_idx", "med_class_idx", "tail_class_idx"),
    *("distributed", "world_size", "rank", "dist_url", "dist_backend", "multiprocessing_distributed"),
    *("lr_warmup_decay", "resize_size", "mixup", "fix_bn", "dot_loss", "reg_dot_loss", "criterion"),
)


def read_dl2pa_config(path: str | os.PathLike[str]) -> Values:
    """The settings of one of the authors' YAML files, by our flat keys such as ``optim.lr``.

    ``docs/dl2pa.md`` says what becomes of each key.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown or repeated key, an unknown data set, a value of another type, a ``reg_lam``
            above zero.
    """
    given = _read(path)
    theirs = DEFAULTS | given
    if theirs["dataset"] not in DATASETS:
        raise ValueError(f"{path}: dataset is {shown(theirs['dataset'])}; expected one of {', '.join(DATASETS)}")
    if theirs["backbone"] not in BACKBONES:
        raise ValueError(f"{path}: backbone is {shown(theirs['backbone'])}; expected one of {', '.join(BACKBONES)}")
    if theirs["reg_lam"] > 0:
        raise ValueError(f"{path}: reg_lam is {theirs['reg_lam']}; expected 0: no loss here shortens the features")
    found = _of_any_run(theirs) | _of_the_data_set(theirs)
    if not theirs["fixed_classifier"]:
        found = {
            key: value for key, value in found.items() if key not in ("head.loss", "head.means", "head.prototypes")
        }
        found |= {"head.name": "softmax", "head.reduction": "mean"}
    return found


def _of_any_run(theirs: Values) -> Values:
    swin = theirs["backbone"].startswith("swin")
    found = {
        "data.num_classes": theirs["num_classes"],
        "data.batch_size": theirs["batch_size"],
        "model.name": BACKBONES[theirs["backbone"]],
        "head.name": "prototype",
        "head.dim": theirs["space_dim"],
        "head.means": "official",
        "head.initial_assignment": "random",
        "optim.name": "adamw" if swin else "sgd",
        "optim.nesterov": False,
        "optim.warmup_epochs": 0.0,
        "deterministic": theirs["deterministic"],
        **{f"optim.{key}": theirs[key] for key in ("lr", "momentum", "weight_decay")},
        "optim.epochs": theirs["num_epochs"],
    }
    renamed = {"name": "name", "workers": "data.workers", "data_path": "data.root"}
    renamed |= {"centroid_path": "head.prototypes", "crop_size": "data.image_size"}
    return found | {ours: theirs[key] for key, ours in renamed.items() if theirs.get(key, -1) != -1}


def _of_the_data_set(theirs: Values) -> Values:
    """Loss and schedule, which their code chooses by the data set."""
    name = theirs["dataset"]
    if name in BALANCED:
        return {"data.name": name, "head.loss": "official", "head.reduction": "sum"} | _steps(theirs, "drop1", "drop2")
    if name == "imagenet":
        warmup = {"optim.schedule": "cosine", "optim.warmup_epochs": float(max(0, theirs["warmup_epochs"]))}
        return {"data.name": name, "head.loss": "eq6", "head.reduction": "mean", "optim.mixup": 1.0} | warmup
    found = {
        "data.name": LONG_TAILED[name],
        "model.batchnorm": True,
        "head.loss": "eq6",
        "head.reduction": "mean",
        "optim.mixup": theirs["alpha"],
        "optim.class_weights": "in_batch",
        "optim.warmup_epochs": float(max(0, theirs["drop1"])),
    }
    tail = {} if name == "imagenetLT" else {"data.imbalance": theirs["imb_factor"]}
    return found | tail | _steps(theirs, "drop2", "drop3")


def _steps(theirs: Values, *keys: str) -> Values:
    """The epochs at which the rate falls to a tenth; one that the run does not reach is left out."""
    epochs = [float(theirs[key]) for key in keys if 0 < theirs[key] < theirs["num_epochs"]]
    return {"optim.schedule": "step" if epochs else "constant"} | ({"optim.milestones": epochs} if epochs else {})


def _read(path: str | os.PathLike[str]) -> Values:
    """The keys of a file that have an effect, with values of their types."""
    found: Values = {}
    lines: dict[str, int] = {}
    for key, value in read_mapping(path, "dataset: 'cifar100'").value:
        name, line = str(key.value), key.start_mark.line + 1
        here = f"{path} line {line}"
        if name in lines:
            raise ValueError(f"{here}: {name} is repeated, first in line {lines[name]}; expected each key once")
        lines[name] = line
        if name in WITHOUT_EFFECT or (name in OPTIONAL and is_null(value)):
            continue
        if name not in _KINDS:
            near = nearest(name, [*_KINDS, *WITHOUT_EFFECT])
            hint = f"did you mean {near}?" if near else "leave it out"
            raise ValueError(f"{here}: {shown(name)} is no key of the authors' configuration files; {hint}")
        kind, expected = _KINDS[name]
        try:
            found[name] = kind(value.value)
        except (ValueError, KeyError, TypeError, AttributeError):
            text = shown(value.value) if isinstance(value.value, str) else "a list or a mapping"
            raise ValueError(f"{here}: {name} is {text}; expected {expected}") from None
    return found
