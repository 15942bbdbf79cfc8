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
    "imagenet200-32px": {"data.name": "imagenet200", "data.image_size": "32"},
    "imagenet": {"data.name": "imagenet"},
    "imagenet-lt": {"data.name": "imagenet-lt"},
    **{  # augmented as each set is: digits are not mirrored
        f"{name}-lt-{imbalance}": {"data.name": name, "data.imbalance": imbalance, "data.augment": "auto"}
        for name in ("cifar10", "cifar100", "svhn", "stl10")
        for imbalance in ("0.005", "0.01", "0.02")
    },
}
ROOTS = tuple(name for name in dict.fromkeys(s["data.name"] for s in DATA.values()) if name not in ("digits", "glyphs"))
"""Sets that lie in a folder."""
DOWNLOADED = ("cifar10", "cifar100", "svhn", "stl10")
"""Sets that fastproto-train can download."""


@dataclass(frozen=True)
class Recipe:
    """A backbone, an optimiser and a number of epochs.

    Args:
        model: the backbone, in words.
        named: the recipe of fastproto-train, where "set" is that of the data and "dim" is D; None: its defaults.
        settings: what differs from that.
        cross_entropy: what differs for methods of cross-entropy.
        halved: what differs for methods with half of the loss that the rate is for.
    """

    model: str
    epochs: int
    named: str | None = None
    settings: Settings = field(default_factory=dict)
    cross_entropy: Settings = field(default_factory=dict)
    halved: Settings = field(default_factory=dict)


# The rate of these recipes is for the sum of (1 - cos)² over a batch; a cross-entropy has one for its mean. Of half of
# that loss SGD makes the same steps with twice the rate and half the weight decay.
_BALANCED = Recipe(
    "ResNet-32",
    250,
    "{set}-d{dim}",
    cross_entropy={"head.loss": "eq6", "head.reduction": "mean", "optim.lr": "0.1"},
    halved={"optim.lr": "0.02", "optim.weight_decay": "5e-05"},
)
RECIPES = {
    "cnn": Recipe("cnn", 20, settings={"model.name": "cnn", "head.loss": "eq6"}),
    "resnet32": _BALANCED,
    "resnet20": replace(_BALANCED, model="ResNet-20", settings={"model.name": "resnet20-hpn"}),
    "resnet56": replace(_BALANCED, model="ResNet-56", settings={"model.name": "resnet56-hpn"}),
    "resnet32-lt": Recipe("ResNet-32", 200, "{set}-lt-0.01-d{dim}"),
    "imagenet-r50": Recipe("ResNet-50", 100, "imagenet-r50-d{dim}"),
    "imagenet-swin-t": Recipe("Swin-T", 100, "imagenet-swin-t-d{dim}"),
    "imagenet-lt-r50": Recipe("ResNet-50", 200, "imagenet-lt-r50-d{dim}"),
}
LIKE = {"svhn": "cifar10", "stl10": "cifar10"}
"""Sets without recipes of their own, and the set whose recipes they take."""
ON_CPU = "cnn"
"""What takes the place of a named recipe where there is no GPU."""
TRAINED_IN = {"table8": "table1"}
"""Tables whose runs begin from runs of another table."""


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
    table = TRAINED_IN.get(cell.table, cell.table)
    return None if method is None else replace(cell, table=table, method=method, overrides=overrides)


def settings_of(cell: Cell) -> Settings:
    """What fastproto-train is told of a cell, ``recipe`` first; the same on every machine."""
    recipe, method = RECIPES[cell.recipe], METHODS[cell.method]
    name = DATA[cell.data]["data.name"]
    named = {} if recipe.named is None else {"recipe": recipe.named.format(set=LIKE.get(name, name), dim=cell.dim)}
    return {
        **named,
        **DATA[cell.data],
        **recipe.settings,
        **(recipe.cross_entropy if method.cross_entropy else {}),
        **(recipe.halved if method.halved else {}),
        **method.settings,
        "head.dim": str(cell.dim),
        "head.effort": "best",
        "optim.epochs": str(cell.epochs),
        "precision": cell.precision,
        "seed": str(cell.seed),
        **dict(cell.overrides),
    }


def arguments_of(cell: Cell, place: Place, machine: Machine) -> list[str]:
    """The arguments of fastproto-train: a new run, or the rest of one that has begun."""
    settings = settings_of(cell) | _of_machine(cell, place, machine)
    run = place.run(cell)
    begun = has_begun(run)
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return [*words, "--progress", "false", "--resume" if begun else "--out", str(run)]


def has_begun(run: Path) -> bool:
    """Whether there is a run to go on with, which knows where its data lie."""
    return (run / "config.yaml").is_file()


def _of_machine(cell: Cell, place: Place, machine: Machine) -> Settings:
    settings = {"accelerator": machine.accelerator} if machine.accelerator != "auto" else {}
    name = DATA[cell.data]["data.name"]
    root = machine.roots.get(name)
    if root is not None:
        settings["data.root"] = str(root)
        if name.startswith("cifar") and (root / "train").is_dir():  # pictures in folders, not the set's own files
            settings |= {"data.name": "image-folder", "data.augment": "crop_flip"}  # as the set's own files are
    if machine.download and settings.get("data.name", name) in DOWNLOADED:
        settings["data.download"] = "true"
    if METHODS[cell.method].words and machine.words is not None:
        settings["head.words"] = str(machine.words)
    first = trained_by(cell)
    if first is not None:
        settings["head.trained"] = str(place.run(first))
    return settings


def missing(cell: Cell, machine: Machine) -> str | None:
    """What a cell needs and has not been given, in words."""
    name = DATA[cell.data]["data.name"]
    needs = []
    if METHODS[cell.method].words and machine.words is None:
        needs.append("--words FILE with vectors of the class names")
    if name in ROOTS and name not in machine.roots:
        needs.append(f"--root {name}=DIR")
    return f"it needs {' and '.join(needs)}" if needs else None
