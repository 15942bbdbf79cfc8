"""fastproto-train with a backbone on which ranks agree: batch normalisation has statistics of each rank's own."""

from __future__ import annotations

import sys
from typing import Any

import torch

from fastproto import cli
from fastproto.training import classifier

OPTIONS = ["--accelerator", "cpu", "--progress", "false", "--data.augment", "false", "--model", "mlp"]
OPTIONS += [
    "--optim.epochs",
    "2",
    "--optim",
    "sgd",
    "--optim.lr",
    "0.5",
    "--head.dim",
    "3",
    "--head.loss",
    "eq6",
    "--head.momentum",
    "0",
]
OPTIONS += [
    "--head.loss",
    "eq6",
    "--head.renewals_per_epoch",
    "4",
    "--head.initial_assignment",
    "aligned",
    "--head.early_epochs",
    "0.5",
]
OPTIONS += ["--head.early_renewals_per_epoch", "4", "--head.early_alignment", "true"]


def linear(*args: Any, dim: int, **settings: Any) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, dim, bias=False))


if __name__ == "__main__":
    torch.set_num_threads(1)
    classifier.build_backbone = linear
    sys.exit(cli.train())
