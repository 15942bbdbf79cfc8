"""From a cell to the command line of fastproto-train: its data, its backbone and budget, its method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.reproduce.cells import Cell, Place
from lib.reproduce.methods import METHODS

Settings = dict[str, str]  # of fastproto-train, by their keys

DATA: dict[str, Settings] = {
    "digits": {"data.name": "digits"},
    "glyphs200": {"data.name": "glyphs", "data.num_classes": "200"},
    "glyphs1000": {"data.name": "glyphs", "data.num_classes": "1000"},
    "cifar100": {"data.name": "cifar100"},
    "imagenet200": {"data.name": "imagenet200"},
    "imagenet": {"data.name": "imagenet"},
    "imagenet-lt": {"data.name": "imagenet-lt"},
    **{
        f"{name}-lt-{imbalance}": {"data.name": name, "data.imbalance": imbalance}
        for name in ("cifar10", "cifar100", "svhn", "stl10")
        for imbalance in ("0.005", "0.01", "0.02")
    },
}
ROOTS = tuple(name for name in dict.fromkeys(s["data.name"] for s in DATA.values()) if name not in ("digits", "glyphs"))
"""Sets that lie in a folder."""


@dataclass(frozen=True)
class Recipe:
    """A backbone, an optimiser and a number of epochs.

    Args:
        cross_entropy: what differs for methods of cross-entropy.
        gpu: whether it is meant for a GPU; on the CPU :data:`ON_CPU` takes its place.
    """

    settings: Settings
    epochs: int
    cross_entropy: Settings = field(default_factory=dict)
    gpu: bool = True


_SGD = {"optim.name": "sgd", "optim.schedule": "step", "optim.warmup_epochs": "0", "data.batch_size": "128"}
_SUM = {"head.loss": "official", "head.reduction": "sum"}  # lr is of the sum of (1 - cos)² over the batch
_BALANCED = Recipe(
    {
        **{"model.name": "resnet32", **_SGD, **_SUM, "optim.lr": "0.01", "optim.weight_decay": "1e-4"},
        "optim.milestones": "0.4,0.8",
    },
    epochs=250,
    cross_entropy={"head.reduction": "mean", "optim.lr": "0.1"},
)
_LONG_TAIL = Recipe(
    {
        **{"model.name": "resnet32", **_SGD, **_SUM, "optim.lr": "0.1", "optim.weight_decay": "2e-4"},
        **{"optim.milestones": "0.8,0.9", "model.batchnorm": "true"},
        **{"optim.mixup": "1.0", "optim.class_weights": "inverse_frequency"},
    },
    epochs=200,
    cross_entropy={"head.reduction": "mean"},
)
_RESNET_50 = Recipe(
    {
        **{"model.name": "resnet50", "data.batch_size": "1024", "optim.name": "sgd", "optim.lr": "0.5"},
        **{"optim.weight_decay": "2e-5", "optim.warmup_epochs": "5", "optim.schedule": "cosine", "optim.mixup": "1.0"},
    },
    epochs=100,
)
RECIPES = {
    "cnn": Recipe({"model.name": "cnn"}, epochs=20, gpu=False),
    "resnet32": _BALANCED,
    "resnet20": replace(_BALANCED, settings=_BALANCED.settings | {"model.name": "resnet20"}),
    "resnet56": replace(_BALANCED, settings=_BALANCED.settings | {"model.name": "resnet56"}),
    "resnet32-lt": _LONG_TAIL,
    "imagenet-r50": _RESNET_50,
    "imagenet-swin-t": Recipe(
        {
            **_RESNET_50.settings,
            **{"model.name": "swin_t", "optim.name": "adamw", "optim.lr": "1e-3"},
        },
        epochs=100,
    ),
}
ON_CPU = "cnn"


@dataclass(frozen=True)
class Machine:
    """What differs between machines and changes no result: where the data lie, and what trains.

    Args:
        roots: folders by the names in :data:`ROOTS`.
        download: whether a set that is missing is downloaded.
        accelerator: auto, cpu or gpu.
        words: file of word vectors of the class names.
    """

    roots: dict[str, Path] = field(default_factory=dict)
    download: bool = False
    accelerator: str = "auto"
    words: Path | None = None


def trained_by(cell: Cell) -> Cell | None:
    """The cell whose run this one begins from."""
    method = METHODS[cell.method].trained_by
    overrides = tuple((key, value) for key, value in cell.overrides if not key.startswith("head."))
    return None if method is None else replace(cell, method=method, overrides=overrides)


def settings_of(cell: Cell) -> Settings:
    """What fastproto-train is told of a cell; the same on every machine."""
    recipe, method = RECIPES[cell.recipe], METHODS[cell.method]
    return {
        **DATA[cell.data],
        **recipe.settings,
        **(recipe.cross_entropy if method.cross_entropy else {}),
        **method.settings,
        "head.dim": str(cell.dim),
        "optim.epochs": str(cell.epochs),
        "seed": str(cell.seed),
        **dict(cell.overrides),
    }


def arguments_of(cell: Cell, place: Place, machine: Machine) -> list[str]:
    """The arguments of fastproto-train: a new run, or the rest of one that has begun."""
    settings = settings_of(cell) | _of_machine(cell, place, machine)
    run = place.run(cell)
    begun = (run / "config.yaml").is_file()
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return [*words, "--progress", "false", "--resume" if begun else "--out", str(run)]


def _of_machine(cell: Cell, place: Place, machine: Machine) -> Settings:
    settings = {"accelerator": machine.accelerator} if machine.accelerator != "auto" else {}
    name = DATA[cell.data]["data.name"]
    root = machine.roots.get(name)
    if root is not None:
        settings["data.root"] = str(root)
        if name.startswith("cifar") and (root / "train").is_dir():  # pictures in folders, not the set's own files
            settings["data.name"] = "image-folder"
    if machine.download and name in ROOTS:
        settings["data.download"] = "true"
    if METHODS[cell.method].words and machine.words is not None:
        settings["head.words"] = str(machine.words)
    first = trained_by(cell)
    if first is not None:
        settings["head.trained"] = str(place.run(first))
    return settings


def missing(cell: Cell, machine: Machine) -> str | None:
    """What a cell needs and has not been given, in words."""
    needs_words = METHODS[cell.method].words and machine.words is None
    return "it needs --words FILE with vectors of the class names" if needs_words else None
