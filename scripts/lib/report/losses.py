"""The study of losses: accuracy of every loss and head, and the gain of renewing the assignment under each loss."""

from __future__ import annotations

from statistics import mean, stdev

from benchmarks.pages.formats import markdown
from benchmarks.pages.pictures import Line, Panel
from lib.repository import NOT_MEASURED, Record
from lib.reproduce import loss_study
from lib.reproduce.cells import FLOAT32, cell_of
from lib.reproduce.loss_study import (
    AT_DEFAULT_RATE,
    DEFAULT_RATE,
    DIMS,
    EPOCHS,
    LONG_EPOCHS,
    RATES,
    SEARCHED,
    SEEDS,
    TRIED,
    best_rate,
)

TITLES = {  # of the methods, in the order of the columns
    "dynamic-aligned": "Eq. 6",
    "power-3": "p = 3",
    "power-1.5": "p = 1.5",
    "power-1": "p = 1",
    "power-0.5": "p = ½",
    "softmax-norm": "softmax, `norm`",
    "psc": "learned unit rows",
    "linear": "linear",
}
FIXED = {
    "dynamic-aligned": "fixed-aligned",
    "power-1": "fixed-power-1",
    "power-0.5": "fixed-power-0.5",
    "softmax-norm": "fixed-softmax-norm",
}
"""Each renewed method, and the one that keeps its first assignment."""
POWERS = {2.0: "dynamic-aligned", 3.0: "power-3", 1.5: "power-1.5", 1.0: "power-1", 0.5: "power-0.5"}
DATA = {"digits": "digits", "glyphs200": "glyphs 200", "glyphs1000": "glyphs 1,000", "cifar100": "CIFAR-100"}
Setting = tuple[str, int, int]  # data, D, epochs
SETTINGS: list[Setting] = [
    *((data, dim, EPOCHS[data]) for data, dims in DIMS.items() for dim in dims),
    ("glyphs200", 8, LONG_EPOCHS),
]
SCHEDULES = {"first quarter": "in the first quarter only", "turned": "prototypes turned in the first half"}
LINES = {
    "fixed-aligned": "Eq. 6, first assignment kept",
    "dynamic-aligned": "Eq. 6, renewed",
    "power-0.5": "p = ½, renewed",
    "softmax-norm": "softmax, renewed",
    "linear": "linear, learned",
}


def accuracy(records: list[Record]) -> str:
    """Validation and test accuracy of each method."""
    rows = [
        [_name(setting), str(setting[2]), *(_accuracies(_runs(records, setting, method), setting) for method in TITLES)]
        for setting in SETTINGS
    ]
    return markdown(["validation / test, %", "epochs", *TITLES.values()], rows)


def rates(records: list[Record]) -> str:
    """Validation accuracy at each learning rate, from which the best was taken."""
    methods = [method for method in TITLES if SEARCHED[method] == method]
    rows = [
        [_name(setting), *(_at_rates(records, setting, method) for method in methods)]
        for setting in SETTINGS
        if setting[2] != LONG_EPOCHS
    ]
    return markdown([f"validation, %, at {' / '.join(RATES)}", *(TITLES[method] for method in methods)], rows)


def at_default_rate(records: list[Record]) -> str:
    """Accuracy of the powers at the default rate."""
    methods = ("dynamic-aligned", "power-1", "power-0.5")
    rows = []
    for data, dim in AT_DEFAULT_RATE:
        setting = data, dim, EPOCHS[data]
        runs = (_runs(records, setting, method, rate=DEFAULT_RATE) for method in methods)
        rows.append([_name(setting), *(_accuracies(found, setting) for found in runs)])
    return markdown([f"validation / test, %, at {DEFAULT_RATE}", *(TITLES[method] for method in methods)], rows)


def schedules(records: list[Record]) -> str:
    """Other schedules of the renewals beside one an epoch and none."""
    rows = []
    for (name, method), places in TRIED.items():
        for data, dim in places:
            setting = data, dim, EPOCHS[data]
            usual, other = _runs(records, setting, method), _runs(records, setting, method, name)
            kept = _runs(records, setting, FIXED[method])
            cells = [_accuracies(runs, setting) for runs in (usual, other, kept)]
            rows.append([_name(setting), TITLES[method], SCHEDULES[name], *cells])
    return markdown(["validation / test, %", "loss", "other schedule", "once an epoch", "other", "kept"], rows)


def gains(records: list[Record]) -> str:
    """Points of test accuracy that renewals add, at equal seeds."""
    rows = [
        [_name(setting), *(_gain(records, setting, renewed, kept) for renewed, kept in FIXED.items())]
        for setting in SETTINGS
        if setting[2] != LONG_EPOCHS
    ]
    return markdown(["test, points", *(TITLES[method] for method in FIXED)], rows)


def auto(records: list[Record], powers: list[Record]) -> str:
    """The power auto beside the power of the best validation accuracy."""
    rows = []
    for row in powers:
        setting = row["data"], row["D"], EPOCHS[row["data"]]
        found = {power: _runs(records, setting, method) for power, method in POWERS.items()}
        tried = {power: runs for power, runs in found.items() if runs}
        if row["power"] not in tried:
            continue
        best = max(tried, key=lambda power: mean(run["validation"] for run in tried[power]))
        less = [
            100 * (mean(run[key] for run in tried[row["power"]]) - mean(run[key] for run in tried[best]))
            for key in ("validation", "test")
        ]
        cosine, chosen = f"{row['mean_max_cosine']:.2f}", f"{row['power']:g}"
        rows.append([_name(setting), cosine, chosen, f"{best:g}", *(f"{points:+.1f}" for points in less)])
    return markdown(
        ["", "mean cosine to the nearest", "auto", "best on validation", "validation, points", "test, points"], rows
    )


def by_dimension(records: list[Record]) -> list[Panel]:
    """Test accuracy against D, one panel per data set."""
    panels = []
    for data, title in list(DATA.items())[1:]:
        lines = []
        for method, name in LINES.items():
            runs = {dim: _runs(records, (data, dim, EPOCHS[data]), method) for dim in DIMS[data]}
            found = {dim: [100 * run["test"] for run in held] for dim, held in runs.items() if held}
            if not found:
                continue
            error = [stdev(values) if len(values) > 1 else 0.0 for values in found.values()]
            lines.append(Line(name, [float(dim) for dim in found], [mean(v) for v in found.values()], error))
        ticks = [float(dim) for dim in DIMS[data]]
        panels.append(Panel(title, "dimension D", "test accuracy, %", lines, "x", ticks=ticks, bottom=0.0))
    return panels


def _name(setting: Setting) -> str:
    return f"{DATA[setting[0]]}, D = {setting[1]}"


def _runs(
    records: list[Record], setting: Setting, method: str, schedule: str | None = None, rate: str | None = None
) -> list[Record]:
    """Float32 runs of a method by seed: at its own learning rate or another, with the usual schedule or another."""
    data, dim, epochs = setting
    rate = best_rate(data, dim, method) if rate is None else rate
    overrides = {} if schedule is None else loss_study.schedule(schedule, epochs)
    if rate != DEFAULT_RATE:
        overrides |= {"optim.lr": rate}
    wanted = (data, dim, epochs, method, overrides, FLOAT32)
    cells = [(record, cell_of(record["cell"])) for record in records]
    found = [r for r, c in cells if (c.data, c.dim, c.epochs, c.method, dict(c.overrides), c.precision) == wanted]
    return sorted(found, key=lambda record: int(record["cell"]["seed"]))


def _at_rates(records: list[Record], setting: Setting, method: str) -> str:
    first = ([run for run in _runs(records, setting, method, rate=rate) if run["cell"]["seed"] == 0] for rate in RATES)
    return " / ".join(f"{100 * runs[0]['validation']:.1f}" if runs else "?" for runs in first)


def _accuracies(runs: list[Record], setting: Setting) -> str:
    if not runs:
        return NOT_MEASURED
    text = " / ".join(_spread([100 * run[key] for run in runs]) for key in ("validation", "test"))
    seeds = 1 if setting[2] == LONG_EPOCHS else len(SEEDS[setting[0]])
    return text + ("" if len(runs) >= seeds else f" ({len(runs)} of {seeds} seeds)")


def _gain(records: list[Record], setting: Setting, renewed: str, kept: str) -> str:
    base = {run["cell"]["seed"]: run["test"] for run in _runs(records, setting, kept)}
    after = {run["cell"]["seed"]: run["test"] for run in _runs(records, setting, renewed)}
    points = [100 * (after[seed] - base[seed]) for seed in sorted(base.keys() & after.keys())]
    if not points:
        return NOT_MEASURED
    seeds = len(SEEDS[setting[0]])
    return _spread(points, "+") + ("" if len(points) >= seeds else f" ({len(points)} of {seeds} seeds)")


def _spread(values: list[float], sign: str = "") -> str:
    return f"{mean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
