"""The machine, the versions and the commit of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

import fastproto
from fastproto.cpu.hardware import quick_bfloat16, quick_integers

from .comparison import Record

HERE = Path(__file__).parent
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "scipy",
    "numba",
    "lapx",
    "lapjv",
    "torch-linear-assignment",
    "pytorch-metric-learning",
    "liger-kernel",
    "cut-cross-entropy",
)


@cache
def versions() -> str:
    """Python, fastproto and the packages that take part, as one line."""
    found = [f"Python {platform.python_version()}", f"fastproto {fastproto.__version__}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


@cache
def commit() -> str:
    """Of FASTPROTO_COMMIT or of the repository around these files; ``unknown`` for an installed package."""
    if named := os.environ.get("FASTPROTO_COMMIT"):
        return named
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        # no repository that merely contains the environment: its commit says nothing about fastproto
        if not (HERE.parent / "pyproject.toml").is_file():
            return "unknown"
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def load() -> float | None:
    """Processes that run or wait, over the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine(device: torch.device, load_before: float | None) -> Record:
    """What a report says about the machine; the load before a run is that of others."""
    cpu = torch.device("cpu")
    found = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "quick_bfloat16": quick_bfloat16(cpu),
        "quick_integers": quick_integers(cpu),
        "device": device_name(device),
        "versions": versions(),
        "fastproto_commit": commit(),
    }
    return found if load_before is None else found | {"load_before": load_before}
