"""What each integration reaches on the handwritten digits within the budget of a run of fastproto-train."""

from __future__ import annotations

import importlib.util
import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastproto.models.vision import GreyAsRGB
from fastproto.support.atomic_files import write_whole
from lib.integrations.digits import Budget, D, accuracy, head, mlp
from lib.integrations.tables import MLP, TIMM, TRAINER, accuracy_table, longer_table
from lib.integrations.trainings import TRAININGS, Training, plain
from lib.repository import RESULTS, Record
from lib.reproduce.records import commit

SEEDS = 3
MORE_SEEDS = 10
COMPARED_LONGER = (TRAINER, "plain", "dl2pa", "dl2pa_same_start")
"""What is trained with MORE_SEEDS on the MLP."""
BUDGET = Budget(epochs=20, lr=1e-2, per_epoch=1.0)  # of every run
Train = Callable[[int], float]  # test accuracy with a seed


@dataclass(frozen=True)
class Way:
    """A way to train: the module of the package that it needs, its backbone, and its seeds."""

    name: str
    package: str
    backbone: str
    seeds: int
    train: Train


def by_trainer(backbone: str, budget: Budget = BUDGET) -> Train:
    """Runs of fastproto-train: the accuracy is that of the checkpoint with the best validation accuracy."""

    def train(seed: int) -> float:
        from fastproto.training import TrainConfig, fit

        config = TrainConfig.from_dict({"seed": seed, "head": {"dim": D, "loss": "eq6"}, "model": {"name": backbone}})
        config.data.augment, config.head.renewals_per_epoch, config.optim = "none", budget.per_epoch, budget.optim
        config.progress, config.accelerator = False, "cpu"
        with tempfile.TemporaryDirectory() as folder:
            config.out = str(Path(folder) / "run")
            return float(fit(config).test_accuracy)

    return train


def by_integration(training: Training, made: Callable[[int], nn.Module] = mlp, budget: Budget = BUDGET) -> Train:
    """Runs of a loop of others: the accuracy after the last epoch."""

    def train(seed: int) -> float:
        model, own = made(seed), head(seed)
        with tempfile.TemporaryDirectory() as folder:
            training(model, own, Budget(budget.epochs, budget.lr, seed, budget.per_epoch), Path(folder))
        return accuracy(model, own)

    return train


def timm_network(seed: int) -> nn.Module:
    """The network of timm without its classifier, and a linear layer to D features, as docs/integrations.md has it."""
    import timm

    torch.manual_seed(seed)
    network: Any = timm.create_model(TIMM.removeprefix("timm:"), pretrained=False, num_classes=1000)
    network.reset_classifier(0)
    return GreyAsRGB(nn.Sequential(network, nn.Linear(network.num_features, D)))


WAYS = (
    Way(TRAINER, "lightning", MLP, MORE_SEEDS, by_trainer(MLP)),
    *(
        Way(name, package, MLP, MORE_SEEDS if name in COMPARED_LONGER else SEEDS, by_integration(training))
        for name, (package, training) in TRAININGS.items()
    ),
    Way(TRAINER, "timm", TIMM, SEEDS, by_trainer(TIMM)),
    Way("timm", "timm", TIMM, SEEDS, by_integration(plain, timm_network)),
)


def integrations(out: Path = RESULTS / "integrations.json", ways: tuple[Way, ...] = WAYS) -> list[Record]:
    """Trains the runs that ``out`` lacks, writes ``out`` after each, and prints the tables."""
    rows: list[Record] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else []
    done = {(row["backbone"], row["integration"], row["seed"]) for row in rows}
    for way in ways:
        if importlib.util.find_spec(way.package) is None:
            print(f"{way.backbone}, {way.name}: {way.package} is not installed", flush=True)
            continue
        for seed in range(way.seeds):
            if (way.backbone, way.name, seed) in done:
                continue
            rows.append(_row(way, seed))
            _write(out, rows)
    print(f"\n{accuracy_table(rows)}\n\n{longer_table(rows)}")
    return rows


def _write(out: Path, rows: list[Record]) -> None:
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    write_whole(out, lambda file: file.write_text(text, encoding="utf-8"))


def _row(way: Way, seed: int) -> Record:
    test = round(way.train(seed), 6)
    print(f"{way.backbone}, {way.name}, seed {seed}: {100 * test:.2f} %", flush=True)
    return {
        "integration": way.name,
        "backbone": way.backbone,
        "seed": seed,
        "test": test,
        "versions": _versions(way.package),
        "device": f"{platform.machine()} CPU",
        "commit": commit(),
    }


def _versions(package: str) -> dict[str, str]:
    """Of Python, torch and the package."""
    distributions = packages_distributions()
    named = dict.fromkeys(("torch", package))
    return {"python": platform.python_version()} | {name: version(distributions[name][0]) for name in named}
