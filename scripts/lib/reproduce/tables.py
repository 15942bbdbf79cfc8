"""The tables and figures that are made of training runs, and their cells.

A cell that two tables show is trained once, and its record lies with the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lib.reproduce import loss_study
from lib.reproduce.cells import Cell, Overrides
from lib.reproduce.published import BALANCED, IMAGENET_RESNET_50, IMAGENET_SWIN_T, LONG_TAIL, Published
from lib.reproduce.recipes import RECIPES

UNCHECKED = "The paper's table of this number was not at hand: what it compares is this project's choice."
UNWEIGHTED = "The recipes of the full budget have mixup and weights by class; cnn has neither."
FROM_LEARNED = (
    "dynamic-from-psc begins with row y for label y, and its rows come from a training on the labels with as many "
    "epochs; dynamic begins with a random assignment and rows that know no labels."
)
SCALE_16 = "The cross-entropy of psc and psc-uniform has scale 16; the paper states none."


@dataclass(frozen=True)
class Table:
    """One table or figure.

    Args:
        title: what it compares.
        cells: of the full budget, at seed 0.
        published: percent by recipe, then by data, D and method.
        notes: what a reader must know of it.
        moved: whether the share of labels that moved is shown too, by epoch.
        shots: whether the accuracy of classes with many, a medium number of and few training images is shown too.
    """

    title: str
    cells: tuple[Cell, ...]
    published: dict[str, Published] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    moved: bool = False
    shots: bool = False


def grid(
    table: str, recipe: str, data: str, dims: tuple[int, ...], methods: tuple[str, ...], overrides: Overrides = ()
) -> tuple[Cell, ...]:
    """A cell for each D and method, in this order."""
    epochs = RECIPES[recipe].epochs
    return tuple(
        Cell(table, method, data, dim, recipe, epochs, overrides=overrides) for dim in dims for method in methods
    )


DIMS = (10, 25, 50, 100)
COMPARED = ("psc", "word2vec", "hpn", "dynamic")  # by the paper
CIFAR_TABLE1 = grid("table1", "resnet32", "cifar100", DIMS, (*COMPARED, "dynamic-power-auto", "linear"))
TABLE1 = (
    *CIFAR_TABLE1,
    *grid("table1", "resnet32", "imagenet200", (25, 50, 100, 200), COMPARED),
    *grid("table1", "resnet32", "imagenet200-32px", (25,), ("psc", "hpn", "dynamic", "dynamic-power-auto", "linear")),
)


def _of_table1(*methods: str, dims: tuple[int, ...] = DIMS) -> tuple[Cell, ...]:
    return tuple(cell for cell in CIFAR_TABLE1 if cell.method in methods and cell.dim in dims)


TABLE2 = (
    *grid("table2", "resnet32", "cifar100", DIMS, ("fixed",)),
    *grid("table2", "resnet32", "cifar100", (100,), ("etf",)),
    *_of_table1("hpn", "dynamic"),
)
IMBALANCES = ("0.005", "0.01", "0.02")
LONG_TAIL_METHODS = ("psc", "etf", "dynamic")
TABLE8 = grid("table8", "resnet32", "cifar100", (10, 50), ("psc-uniform", "dynamic-from-psc"))


def _varied(table: str, method: str, key: str, value: str) -> tuple[Cell, ...]:
    """CIFAR-100, D = 50, with another value of a setting than the default, whose cell another table has."""
    return grid(table, "resnet32", "cifar100", (50,), (method,), ((key, value),))


TABLES = {
    "table1": Table(
        "Balanced data over D: learned prototypes (psc), fixed ones (word2vec, hpn) and dynamic assignment",
        TABLE1,
        published={"resnet32": BALANCED},
    ),
    "table2": Table(
        "CIFAR-100 with prototypes that are not learned: fixed, etf (D >= C - 1), hpn, dynamic",
        TABLE2,
        published={"resnet32": BALANCED},
        notes=(UNCHECKED,),
    ),
    "table3": Table(
        "ImageNet-1K, D = 512",
        (
            *grid("table3", "imagenet-r50", "imagenet", (512,), ("psc", "dynamic")),
            *grid("table3", "imagenet-swin-t", "imagenet", (512,), ("psc", "dynamic")),
        ),
        published={"imagenet-r50": IMAGENET_RESNET_50, "imagenet-swin-t": IMAGENET_SWIN_T},
        notes=(UNCHECKED,),
    ),
    "table4": Table(
        "Long-tailed CIFAR-10, SVHN and STL-10, D = 64",
        tuple(
            cell
            for data in ("cifar10", "svhn", "stl10")
            for imbalance in IMBALANCES
            for cell in grid("table4", "resnet32-lt", f"{data}-lt-{imbalance}", (64,), LONG_TAIL_METHODS)
        ),
        published={"resnet32-lt": LONG_TAIL},
        notes=(UNCHECKED, UNWEIGHTED),
        shots=True,
    ),
    "table5": Table(
        "Long-tailed CIFAR-100, D = 128, and ImageNet-LT, D = 512",
        (
            *(
                cell
                for imbalance in IMBALANCES
                for cell in grid("table5", "resnet32-lt", f"cifar100-lt-{imbalance}", (128,), LONG_TAIL_METHODS)
            ),
            *grid("table5", "imagenet-lt-r50", "imagenet-lt", (512,), ("psc", "dynamic")),
        ),
        published={"resnet32-lt": LONG_TAIL},
        notes=(UNCHECKED, UNWEIGHTED),
        shots=True,
    ),
    "table6": Table(
        "CIFAR-100 with other backbones, D = 50",
        (
            *grid("table6", "resnet20", "cifar100", (50,), ("psc", "dynamic")),
            *grid("table6", "resnet56", "cifar100", (50,), ("psc", "dynamic")),
        ),
        notes=(UNCHECKED,),
    ),
    "table8": Table(
        "CIFAR-100: learned prototypes kept apart (psc-uniform), and as fixed ones (dynamic-from-psc)",
        (
            *_of_table1("psc", "dynamic", dims=(10, 50)),
            *TABLE8,
        ),
        published={"resnet32": BALANCED},
        notes=(FROM_LEARNED, SCALE_16),
    ),
    "table9": Table(
        "CIFAR-100, D = 50: fixed prototypes with cross-entropy (scale 1 and 16) and with the squared distance",
        (
            *grid("table9", "resnet32", "cifar100", (50,), ("fixed-softmax",), (("head.scale", "1"),)),
            *grid("table9", "resnet32", "cifar100", (50,), ("fixed-softmax",), (("head.scale", "16"),)),
            *(cell for cell in TABLE2 if cell.dim == 50 and cell.method in ("fixed", "dynamic")),
        ),
        published={"resnet32": BALANCED},
    ),
    "figure3b": Table(
        "CIFAR-100, D = 50: renewals of the assignment in an epoch, 1 unless said",
        (
            *_varied("figure3b", "dynamic", "head.renewals_per_epoch", "0.1"),
            *_of_table1("dynamic", dims=(50,)),
            *_varied("figure3b", "dynamic", "head.renewals_per_epoch", "10"),
        ),
    ),
    "figure3d": Table(
        "CIFAR-100, D = 50: weight of L_uni beside the cross-entropy, 1 unless said",
        (
            *_varied("figure3d", "psc-uniform", "head.uniformity_weight", "0.1"),
            *(cell for cell in TABLE8 if cell.method == "psc-uniform" and cell.dim == 50),
            *_varied("figure3d", "psc-uniform", "head.uniformity_weight", "10"),
        ),
        notes=("That the weights of this figure are those of L_uni is this project's reading.",),
    ),
    "figure4a": Table(
        "CIFAR-100 over D: with renewals (dynamic) and without (fixed)",
        (*_of_table1("dynamic"), *(cell for cell in TABLE2 if cell.method == "fixed")),
        published={"resnet32": BALANCED},
    ),
    "figure4b": Table("CIFAR-100: share of labels that a renewal moves, by epoch", _of_table1("dynamic"), moved=True),
    "reasons": Table(
        "CIFAR-100: psc with scale 1, dynamic with the authors' loss, means and optimiser, and at a higher rate",
        (
            *grid("reasons", "resnet32", "cifar100", (10, 50), ("psc",), (("head.scale", "1"),)),
            *grid("reasons", "resnet32", "cifar100", (10, 50), ("dynamic-official",)),
            *grid("reasons", "cnn", "cifar100", (50,), ("dynamic",), (("optim.lr", "0.03"),)),
            *_of_table1("psc", "dynamic", dims=(10, 50)),
        ),
        published={"resnet32": BALANCED},
        notes=("Ours, not the paper's: what the results that contradict it may depend on.",),
    ),
    "losses": Table(
        "Losses and heads where D is small for the number of classes, trained on the CPU",
        loss_study.all_cells(),
    ),
}
