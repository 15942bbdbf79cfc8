"""The machine and the versions of the measurements."""

from __future__ import annotations

import os
import platform
import subprocess

import torch
import triton

from lib.gpu_check.steps import Entries
from lib.repository import ROOT


def machine(dry: bool) -> Entries:
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    yield "triton", triton.__version__
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    yield "commit", os.environ.get("FASTPROTO_COMMIT") or commit.stdout.strip() or "unknown"
    if not dry:
        properties = torch.cuda.get_device_properties(0)
        yield "gpu", properties.name
        yield "capability", f"{properties.major}.{properties.minor}"
        yield "multiprocessors", properties.multi_processor_count
        yield "memory_gib", round(properties.total_memory / 2**30, 1)
        yield "cuda", torch.version.cuda
