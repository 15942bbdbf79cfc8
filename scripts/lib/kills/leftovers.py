"""The files that a run leaves in its folder, and their differences from those of another run."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch


def same(a: object, b: object) -> bool:
    """Whether two nested containers are bitwise equal."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without their seconds."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v and "seconds" not in k} for row in csv.DictReader(file)]


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def checkpoint_differences(name: str, run: Path, whole: Path) -> list[str]:
    a, b = (torch.load(part / "checkpoints" / name, weights_only=True, map_location="cpu") for part in (run, whole))
    return [f"{name} differs in {key}" for key in b if not same(a.get(key), b[key])]


def differences(run: Path, whole: Path) -> list[str]:
    """Differences between the files of a run and those of the undisturbed run."""
    found = []
    if names(run) != names(whole):
        found.append(f"files are {names(run)}")
    for name in ("last.ckpt", "best.ckpt"):
        found += checkpoint_differences(name, run, whole)
    if metrics(run) != metrics(whole):
        found.append("metrics.csv differs")
    for name in ("config.yaml", "classes.csv"):
        if (run / name).read_bytes() != (whole / name).read_bytes():
            found.append(f"{name} differs")
    for file in sorted((whole / "class_means").glob("*.npz")):
        with np.load(run / "class_means" / file.name) as a, np.load(file) as b:
            if any(not np.array_equal(a[key], b[key]) for key in b.files):
                found.append(f"{file.name} differs")
    for file in sorted(whole.glob("*.png")):
        # curves.png shows seconds
        if file.name != "curves.png" and (run / file.name).read_bytes() != file.read_bytes():
            found.append(f"{file.name} differs")
    return found


def messages(folder: Path) -> str:
    """The output of a run on stderr, without notes."""
    lines = (folder / "stderr").read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.startswith("note: "))
