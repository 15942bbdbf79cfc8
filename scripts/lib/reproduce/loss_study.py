"""The cells of ``losses``: a search of the learning rate, the losses at the best, a long budget, other schedules."""

from __future__ import annotations

from lib.reproduce.cells import Cell, Overrides

DIMS = {"digits": (3, 5), "glyphs200": (8, 16, 64), "glyphs1000": (8, 16, 64), "cifar100": (10, 50)}
CLASSES = {"digits": 10, "glyphs200": 200, "glyphs1000": 1000, "cifar100": 100}
EPOCHS = {"digits": 20, "glyphs200": 12, "glyphs1000": 8, "cifar100": 10}
SEEDS = {"digits": (0, 1, 2), "glyphs200": (0, 1, 2), "glyphs1000": (0, 1, 2), "cifar100": (0,)}
DEFAULT_RATE = "0.01"
RATES = ("0.003", DEFAULT_RATE, "0.03")
LONG_EPOCHS = 60

SEARCHED = {  # each method, and the one whose rate it takes
    "dynamic-aligned": "dynamic-aligned",
    "power-0.5": "power-0.5",
    "softmax-norm": "softmax-norm",
    "psc": "psc",
    "linear": "linear",
    "power-1.5": "power-0.5",
    "power-1": "power-0.5",
    "power-3": "dynamic-aligned",
    "fixed-aligned": "dynamic-aligned",
    "fixed-power-1": "power-0.5",
    "fixed-power-0.5": "power-0.5",
    "fixed-softmax-norm": "softmax-norm",
}
WITH_ROOM = (("digits", 5), ("glyphs200", 64), ("glyphs1000", 64), ("cifar100", 50))
"""Where power-3 is tried: few classes for the dimension."""
IN_BETWEEN = (("glyphs200", 64), ("glyphs1000", 64))
"""Where power-1.5 is tried: mean cosine to the nearest prototype about 0.2."""
FIRST_SEED_ONLY = ("fixed-power-1", "fixed-softmax-norm")
BEST_RATES: dict[tuple[str, int, str], str] = {
    ("cifar100", 10, "softmax-norm"): "0.003",
    ("cifar100", 50, "power-0.5"): "0.003",
    ("cifar100", 50, "psc"): "0.003",
    ("digits", 3, "psc"): "0.03",
    ("digits", 3, "softmax-norm"): "0.03",
    ("digits", 5, "dynamic-aligned"): "0.003",
    ("glyphs1000", 8, "dynamic-aligned"): "0.03",
    ("glyphs1000", 8, "linear"): "0.03",
    ("glyphs1000", 8, "power-0.5"): "0.03",
    ("glyphs1000", 8, "psc"): "0.03",
    ("glyphs1000", 8, "softmax-norm"): "0.03",
    ("glyphs1000", 16, "dynamic-aligned"): "0.03",
    ("glyphs1000", 16, "power-0.5"): "0.03",
    ("glyphs1000", 16, "psc"): "0.03",
    ("glyphs1000", 64, "dynamic-aligned"): "0.03",
    ("glyphs1000", 64, "power-0.5"): "0.03",
    ("glyphs1000", 64, "psc"): "0.03",
    ("glyphs200", 8, "psc"): "0.03",
    ("glyphs200", 16, "dynamic-aligned"): "0.03",
    ("glyphs200", 16, "power-0.5"): "0.03",
    ("glyphs200", 16, "psc"): "0.03",
    ("glyphs200", 64, "dynamic-aligned"): "0.003",
    ("glyphs200", 64, "linear"): "0.003",
}
"""Where another rate than 0.01 has the best validation accuracy at seed 0, by data, D and method."""
AT_DEFAULT_RATE = (("glyphs1000", 16),)
"""Where powers are also compared at the default rate, over all seeds."""

SCHEDULES: dict[str, dict[str, str]] = {
    "first quarter": {"head.early_renewals_per_epoch": "1", "head.renewals_per_epoch": "0"},
    "turned": {"head.early_renewals_per_epoch": "1", "head.early_alignment": "true"},
}
"""Other schedules: renewals in the first quarter of the epochs only; prototypes turned too, in their first half."""
SHARES = {"first quarter": 4, "turned": 2}
TRIED = {  # by schedule and method: data and D
    ("first quarter", "power-0.5"): (("glyphs200", 8), ("glyphs200", 16), ("glyphs200", 64), ("glyphs1000", 16)),
    ("turned", "dynamic-aligned"): (("glyphs200", 8),),
    ("turned", "power-1"): (("glyphs200", 8),),
    ("turned", "power-0.5"): (("glyphs200", 8), ("cifar100", 10)),
    ("turned", "softmax-norm"): (("glyphs200", 8), ("cifar100", 10)),
}


def _cell(
    data: str, dim: int, method: str, epochs: int, seed: int, rate: str, schedule: dict[str, str] | None = None
) -> Cell:
    overrides: Overrides = () if rate == DEFAULT_RATE else (("optim.lr", rate),)
    return Cell("losses", method, data, dim, "cnn", epochs, seed, (*(schedule or {}).items(), *overrides))


def best_rate(data: str, dim: int, method: str) -> str:
    return BEST_RATES.get((data, dim, SEARCHED[method]), DEFAULT_RATE)


def methods(data: str, dim: int) -> list[str]:
    only = {"power-3": WITH_ROOM, "power-1.5": IN_BETWEEN}
    return [method for method in SEARCHED if (data, dim) in only.get(method, ((data, dim),))]


def powers() -> list[dict[str, object]]:
    """What the power auto is for the prototypes of each data set and D, and the cosine that it follows from."""
    from fastproto.functional import power_for
    from fastproto.prototypes import estimate_prototypes

    rows: list[dict[str, object]] = []
    for data, dims in DIMS.items():
        for dim in dims:
            found = estimate_prototypes(CLASSES[data], dim, effort="best")
            cosine = round(found.quality.mean_max_cosine, 4)
            rows.append({"data": data, "D": dim, "mean_max_cosine": cosine, "power": power_for(found.vectors)})
            print(f"{data}, D = {dim}: mean cosine to the nearest prototype {cosine:.3f}, p = {rows[-1]['power']:g}")
    return rows


def searched() -> tuple[Cell, ...]:
    """The search of the learning rate."""
    return tuple(
        _cell(data, dim, method, EPOCHS[data], 0, rate)
        for data, dims in DIMS.items()
        for dim in dims
        for method, own in SEARCHED.items()
        if method == own
        for rate in RATES
    )


def compared() -> tuple[Cell, ...]:
    """Every method at its rate, and the long budget."""
    cells = [
        _cell(data, dim, method, EPOCHS[data], seed, best_rate(data, dim, method))
        for data, dims in DIMS.items()
        for dim in dims
        for method in methods(data, dim)
        for seed in SEEDS[data][: 1 if method in FIRST_SEED_ONLY else None]
    ]
    long = [
        _cell("glyphs200", 8, method, LONG_EPOCHS, 0, best_rate("glyphs200", 8, method))
        for method in methods("glyphs200", 8)
        if not method.startswith("fixed")
    ]
    return (*cells, *long)


def at_default_rate() -> tuple[Cell, ...]:
    """The powers at the rate of a user who changes nothing."""
    return tuple(
        _cell(data, dim, method, EPOCHS[data], seed, DEFAULT_RATE)
        for data, dim in AT_DEFAULT_RATE
        for method in ("dynamic-aligned", "power-1", "power-0.5")
        for seed in SEEDS[data]
    )


def schedule(name: str, epochs: int) -> dict[str, str]:
    """The settings of another schedule in a run of so many epochs."""
    return {"head.early_epochs": str(epochs // SHARES[name]), **SCHEDULES[name]}


def tried() -> tuple[Cell, ...]:
    """The other schedules."""
    return tuple(
        _cell(data, dim, method, EPOCHS[data], seed, best_rate(data, dim, method), schedule(name, EPOCHS[data]))
        for (name, method), places in TRIED.items()
        for data, dim in places
        for seed in SEEDS[data]
    )


def all_cells() -> tuple[Cell, ...]:
    """Each once."""
    return tuple(dict.fromkeys((*searched(), *compared(), *at_default_rate(), *tried())))
