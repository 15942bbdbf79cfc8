"""The demo: the gain from renewing the assignment, on printed characters, in about a minute.

usage: scripts/demo [ARGUMENTS]

Trains pairs of runs that differ in --head.renewals_per_epoch only: one run renews its assignment, the other keeps the
initial one. Each seed gives one pair. ARGUMENTS are those of fastproto-train; they override the demo's settings:
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import mean, stdev

from fastproto.cli.command_runner import run_command
from fastproto.cli.train_command import parse_train
from fastproto.training.settings_and_flags import TrainConfig

DATA = ["--data", "glyphs", "--data.num_classes", "64"]
TRAINING = ["--head.dim", "4", "--head.loss", "eq6", "--head.effort", "best"]
TRAINING += ["--optim.epochs", "30", "--progress", "false"]
SEEDS = 3
SECONDS = 60.0  # a pair begins only if it would end within this time
PICTURES = {
    "curves.png": "loss and accuracy by epoch",
    "changed.png": "labels that moved at each renewal",
    "cosines.png": "cosines between class means, similar classes side by side",
    "sphere.png": "prototypes and validation samples on the sphere",
}


@dataclass(frozen=True)
class Renewals:
    """The renewals of a run, in order."""

    moved: list[float]  # share of the labels that changed their prototype, in [0, 1]
    gaps: list[float]  # duality gaps, in units of the summed cosines; 0 is optimal
    certified: int  # how many of the gaps are within the certificate's tolerance

    @classmethod
    def read(cls, metrics_csv: Path) -> Renewals:
        with metrics_csv.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("assignment/changed")]
        return cls(
            [float(row["assignment/changed"]) for row in rows],
            [float(row["assignment/gap"]) for row in rows],
            sum(float(row["assignment/certified"]) == 1 for row in rows),
        )


@dataclass(frozen=True)
class Pair:
    """Two runs of one seed: test accuracies in [0, 1], and the renewals of the first run."""

    folder: Path  # of the run that renews
    renewed: float  # accuracy with renewals
    kept: float  # accuracy with the initial assignment
    renewals: Renewals


def main(args: Sequence[str] | None = None, *, seeds: int = SEEDS, seconds: float = SECONDS) -> int:
    """Runs the demo and returns an exit code; ``args`` None: the arguments of this process."""
    return run_command(lambda words: demo(words, seeds, seconds), args)


def demo(args: Sequence[str], seeds: int = SEEDS, seconds: float = SECONDS) -> None:
    """Trains one pair per seed, as many as fit into ``seconds`` but at least one, and prints the results.

    Raises:
        ValueError: arguments that leave nothing to compare.
    """
    if {"--help", "-h"} & set(args):
        print(__doc__, " ".join(DATA + TRAINING), sep="")
        return
    config = settings(args)
    folder = Path(config.out) if config.out is not None else free_folder(Path("runs"))
    print(introduction(config), flush=True)
    pairs: list[Pair] = []
    began = time.perf_counter()
    while len(pairs) < seeds:
        seed = config.seed + len(pairs)
        pairs.append(train_pair(replace(config, seed=seed), folder / f"seed-{seed}"))
        passed = time.perf_counter() - began
        shown = f"renewed {100 * pairs[-1].renewed:5.1f} %   never renewed {100 * pairs[-1].kept:5.1f} %"
        print(f"seed {seed}: {shown}   (test accuracy; {passed:.0f} s so far)", flush=True)
        if passed * (1 + 1 / len(pairs)) > seconds:
            break
    print("\n" + summary(pairs), flush=True)


def settings(args: Sequence[str]) -> TrainConfig:
    """The demo's settings, overridden by ``args``.

    Raises:
        ValueError: as ``parse_train``; arguments that leave nothing to compare.
    """
    config = parse_train([*DATA, *TRAINING, *args])
    if config.data.name != "glyphs":  # the default number of classes is for glyphs only
        config = parse_train([*TRAINING, *args])
    if config.resume is not None:
        raise ValueError("the demo compares new runs; expected no --resume: use fastproto-train --resume RUN")
    if config.head.name != "prototype" or config.head.renewals_per_epoch == 0:
        raise ValueError(
            f"the demo compares renewed assignments with kept ones; given head {config.head.name} with "
            f"{config.head.renewals_per_epoch:g} renewals per epoch: expected head prototype and more than 0"
        )
    if config.devices * config.num_nodes > 1:
        raise ValueError("the demo trains on one device; expected no --devices and --num_nodes: use fastproto-train")
    return config


def free_folder(runs: Path) -> Path:
    """``runs/demo``, or the first of ``runs/demo-2``, ... that does not exist."""
    names = (runs / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
    return next(folder for folder in names if not folder.exists())


def introduction(config: TrainConfig) -> str:
    data, head = config.data, config.head
    classes = "" if data.num_classes is None else f", {data.num_classes} classes"
    return (
        f"{data.name}{classes} in {head.dim} dimensions, {config.optim.epochs} epochs. Each seed trains two runs:\n"
        f"the assignment is renewed {head.renewals_per_epoch:g} x an epoch in one, and never in the other."
    )


def train_pair(config: TrainConfig, folder: Path) -> Pair:
    """Trains a run that renews its assignment and one that does not, otherwise equal."""
    from fastproto.training import fit

    never = replace(config.head, renewals_per_epoch=0.0, early_epochs=0.0)
    renewed = fit(replace(config, out=str(folder / "renewed")))
    kept = fit(replace(config, head=never, out=str(folder / "never-renewed")))
    renewals = Renewals.read(renewed.folder / "metrics.csv")
    return Pair(renewed.folder, renewed.test_accuracy, kept.test_accuracy, renewals)


def summary(pairs: Sequence[Pair]) -> str:
    """The results of all pairs, the pictures of the first, and two further commands."""
    run, gain = pairs[0].folder, spread(pairs, lambda pair: pair.renewed - pair.kept, "+")
    pictures = [f"  {run / name}   {what}" for name, what in PICTURES.items() if (run / name).is_file()]
    return "\n".join(
        [
            f"test accuracy, mean ± standard deviation over {len(pairs)} seed{'s' * (len(pairs) > 1)}",
            f"  renewed assignment   {spread(pairs, lambda pair: pair.renewed)} %",
            f"  never renewed        {spread(pairs, lambda pair: pair.kept)} %   (same seed, all else equal)",
            f"  difference           {gain} points{verdict(pairs)}",
            *renewal_lines([pair.renewals for pair in pairs]),
            "pictures of the first renewed run",
            *pictures,
            "next",
            "  ./scripts/demo --head.dim 3 --data.num_classes 36   # in three dimensions: draws the sphere, too",
            "  .venv/bin/fastproto-train --data image-folder --data.root DIR   # your images: DIR/train/CLASS/*",
        ]
    )


def verdict(pairs: Sequence[Pair]) -> str:
    """A caveat on the difference; empty if it exceeds two standard deviations."""
    gains = [pair.renewed - pair.kept for pair in pairs]
    if len(gains) == 1:
        return "   (one seed: its noise is not known)"
    return "" if abs(mean(gains)) > 2 * stdev(gains) else "   (within two standard deviations: no difference is shown)"


def renewal_lines(runs: Sequence[Renewals]) -> list[str]:
    """The share of labels that moved, and the certificates of the assignments."""
    if not all(run.moved for run in runs):
        return ["no renewal was due: train for more epochs"]
    quarter = [share for run in runs for share in run.moved[-max(1, len(run.moved) // 4) :]]
    number = sum(len(run.gaps) for run in runs)
    largest = max(gap for run in runs for gap in run.gaps)
    return [
        f"labels moved           {100 * mean(run.moved[0] for run in runs):.0f} % at the first renewal, "
        f"{100 * mean(quarter):.0f} % at those of the last quarter",
        f"optimality gap         at most {largest:.1e} of a sum of cosines; "
        f"{sum(run.certified for run in runs)} of {number} renewals certified optimal",
    ]


def spread(pairs: Sequence[Pair], of: Callable[[Pair], float], sign: str = "") -> str:
    values = [100 * of(pair) for pair in pairs]
    return f"{mean(values):{sign}5.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    raise SystemExit(main())
