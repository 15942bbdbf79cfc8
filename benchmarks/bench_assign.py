"""The assignment beside dense solvers, all given class means and prototypes: their times include forming the matrix.

``renewals`` is a sequence of assignments, each started from the one before; its rounds are the renewals. The
constants of the solver were chosen on means made like ``clustered``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastproto.assignment import Assignment, assign
from fastproto.assignment.inputs import Method
from fastproto.assignment.scores_cpu import ROUNDED_MIN_DIM
from fastproto.backend import resolve
from fastproto.cpu.hardware import quick_bfloat16

from .ceilings import in_halves
from .comparison import Call, Case, Comparison, Provider, Record, Row, Setup, Size, Work, compared
from .instances import SEQUENTIAL, Pair, matching
from .peers import imported

Solver = Callable[[Tensor], object]
"""Maximises the sum of the scores [C, C], float32 on the CPU."""


def inputs(size: Size, device: torch.device) -> Pair:
    return matching(size["means"], size["C"], size["D"], device)


def ours(pair: Pair, method: Method = "auto") -> Setup:
    last: list[Assignment] = []
    if method == "lapjv":
        imported("lapjv")

    def call(_: int) -> Assignment:
        last[:] = [assign(*pair, method=method)]
        return last[0]

    by_lapjv = method == "lapjv"  # forms all scores in float32
    return Setup(call, None if by_lapjv else work_of_pass(pair), facts=lambda: facts_of(last[0], pair))


def unchanged(pair: Pair) -> Setup:
    """The same problem again, with its answer as ``previous``."""
    found = assign(*pair)
    return Setup(lambda _: assign(*pair, previous=found), work_of_pass(pair))


def facts_of(found: Assignment, pair: Pair) -> Record:
    known = {"method": found.method, "reason": found.reason, "certified": found.certified, "passes": found.passes}
    known |= {"relative_gap": found.relative_gap}
    if len(pair[0]) > 2_000:  # SciPy takes too long to check the objective
        return known
    means, prototypes = (x.cpu() for x in pair)
    columns = torch.as_tensor(scipy_solver()(means @ prototypes.T), dtype=torch.int64)
    best = float((means.double() * prototypes.double()[columns]).sum())
    return known | {"objective_minus_scipy": found.objective - best}


def lapjv_solver() -> Solver:
    solve = imported("lapjv").lapjv
    return lambda scores: solve((-scores).numpy())[0]


def lapx_solver() -> Solver:
    """Its fastest solver of float32 costs; older versions have ``lapjvs`` alone."""
    lapx = imported("lap", "lapx")
    solve = getattr(lapx, "lapjvr", None) or lapx.lapjvs
    return lambda scores: solve((-scores).numpy(), return_cost=False)[1]


def scipy_solver() -> Solver:
    solve = imported("scipy.optimize").linear_sum_assignment
    return lambda scores: solve(scores.numpy(), maximize=True)[1]


def torch_solver() -> Solver:
    """On the CPU it calls SciPy."""
    solve = imported("torch_linear_assignment", "torch-linear-assignment").batch_linear_assignment
    return lambda scores: solve(-scores[None])[0]


def dense(solver: Callable[[], Solver], on_device: bool, pair: Pair) -> Call:
    solve = solver()
    means, prototypes = pair

    def call(_: int) -> object:
        scores = means @ prototypes.T
        return solve(scores if on_device else scores.cpu())

    return call


def work(size: Size) -> Work:
    """One pass over the scores: no proof of an optimum takes less."""
    return Work(flops=2.0 * size["C"] ** 2 * size["D"], bytes=8.0 * size["C"] * size["D"])


def work_of_pass(pair: Pair) -> Work:
    """The same in the precision of our passes: the kernels' float16 halves, or on a CPU bfloat16 where that is fast."""
    size = {"C": len(pair[0]), "D": pair[0].shape[1]}
    if resolve("assign", *pair).backend == "triton":
        return in_halves(work(size))
    rounded = size["D"] >= ROUNDED_MIN_DIM and quick_bfloat16(torch.device("cpu"))
    return replace(work(size), precision="bfloat16" if rounded else "float32")


def sizes(kind: str, dim: int, classes: list[int]) -> list[Size]:
    return [{"C": c, "D": dim, "means": kind} for c in classes]


COLD, EASY = [1_000, 2_000, 5_000, 10_000], [200, 500, 1_000, 5_000]
ASSIGN = Comparison(
    op="assign",
    sizes={
        "smoke": [*sizes("clustered", 32, [500]), *sizes("easy", 32, [500])],
        "small": [*sizes("clustered", 128, COLD), *sizes("easy", 128, EASY)],
        "full": [
            *sizes("clustered", 128, [*COLD, 20_000, 50_000]),
            *sizes("clustered", 64, [50_000, 100_000]),
            *sizes("easy", 128, EASY),
        ],
    },
    inputs=inputs,
    providers={
        "fastproto": Provider(ours),
        "fastproto, unchanged": Provider(unchanged),
        "fastproto, lapjv": Provider(partial(ours, method="lapjv"), small=10_000, serial=True, warm=True),
        "lapjv": Provider(partial(dense, lapjv_solver, False), small=10_000, serial=True, warm=True),
        "lapx": Provider(partial(dense, lapx_solver, False), small=10_000, serial=True, warm=True),
        "SciPy": Provider(partial(dense, scipy_solver, False), small=5_000, serial=True, warm=True),
        "torch-linear-assignment": Provider(partial(dense, torch_solver, True), small=1_000, serial=True, warm=True),
    },
    work=work,
    serial_part=SEQUENTIAL,
)


@cache
def drifting(classes: int, dim: int, renewals: int, seed: int = 3) -> tuple[Tensor, list[Tensor]]:
    """Prototypes, and class means that begin clustered and wander towards the prototypes of the best assignment."""
    means, prototypes = matching("clustered", classes, dim, seed=seed)
    generator, sequence, noise = torch.Generator().manual_seed(seed), [], torch.zeros(classes, dim)
    speed, found = 0.3 + 1.4 * torch.rand(classes, 1, generator=generator), None
    for step in range(renewals):
        noise = 0.7 * noise + 0.7 * torch.randn(classes, dim, generator=generator) / dim**0.5
        sequence.append(normalize(means + (0.6 * 2 ** (-step / 8) + 0.05) * noise, dim=1))
        found = assign(sequence[-1], prototypes, previous=found)
        pull = 0.08 * speed * (1 - 2 ** (-step / 7))
        means = normalize(means + pull * (prototypes[found.permutation] - means), dim=1)
    return prototypes, sequence


@cache
def trained(classes: int, dim: int, epochs: int) -> tuple[Tensor, list[Tensor]]:
    """Prototypes and class means of a training run on printed characters, at two renewals an epoch (minutes).

    Seed 1: constants that depend on real class means were chosen on runs with seed 0.
    """
    from fastproto.training import TrainConfig, fit
    from fastproto.training.renewals import read_class_means

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig.from_dict(
            {
                "data": {"name": "glyphs", "num_classes": classes},
                "head": {"dim": dim, "effort": "best", "save_class_means": True, "renewals_per_epoch": 2},
                "out": str(Path(folder) / "run"),
                "progress": False,
                "accelerator": "cpu",
                "seed": 1,
            }
        )
        config.optim.epochs = epochs
        saved = read_class_means(fit(config).folder)
    return torch.as_tensor(saved["prototypes"][0]), [torch.as_tensor(q) for q in saved["class_means"]]


def sequence(size: Size, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    make = drifting if size["means"] == "drifting" else trained
    steps = size["renewals"] if size["means"] == "drifting" else size["epochs"]
    prototypes, means = make(size["C"], size["D"], steps)
    return prototypes.to(device), [each.to(device) for each in means]


def renewed(given: tuple[Tensor, list[Tensor]]) -> Setup:
    """Every renewal warm-started from the last; reports the share of labels that each moved."""
    prototypes, means = given
    found: list[Assignment] = []

    def renew(number: int) -> None:
        previous = found[-1] if number else None
        found.append(assign(means[number % len(means)], prototypes, previous=previous))

    def facts() -> Record:
        moved = [None if each.changed is None else each.changed / len(prototypes) for each in found]
        return {"moved": moved, "certified": all(each.certified for each in found)}

    return Setup(renew, facts=facts)


def anew(solver: Callable[[], Solver], given: tuple[Tensor, list[Tensor]]) -> Call:
    (prototypes, means), solve = given, solver()
    return lambda number: solve((means[number % len(means)] @ prototypes.T).cpu())


def drift(dim: int, *classes: int, renewals: int = 50) -> list[Size]:
    return [{"C": c, "D": dim, "means": "drifting", "renewals": renewals} for c in classes]


GLYPHS: list[Size] = [
    {"C": 2_900, "D": 128, "means": "glyphs", "epochs": 10},
    {"C": 1_000, "D": 64, "means": "glyphs", "epochs": 12},
]
RENEWALS = Comparison(
    op="renewals",
    sizes={
        "smoke": drift(32, 300, renewals=6),
        "small": drift(128, 2_000),
        "full": [*drift(128, 2_000, 5_000), *GLYPHS],
    },
    inputs=sequence,
    providers={
        "fastproto": Provider(renewed),
        "lapjv": Provider(partial(anew, lapjv_solver), serial=True),
        "SciPy": Provider(partial(anew, scipy_solver), small=1_000, serial=True),
    },
    rounds=lambda given: len(given[1]),
    serial_part=SEQUENTIAL,
)


@compared(ASSIGN)
def test_assign(case: Case, row: Row) -> None:
    row(case)


@compared(RENEWALS)
def test_renewals(case: Case, row: Row) -> None:
    row(case)
