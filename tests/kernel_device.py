"""Where the kernel tests run: on the GPU, else under Triton's interpreter."""

from __future__ import annotations

import numpy
import pytest
import torch

triton = pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


if DEVICE.type == "cpu" and version(triton.__version__) < (3, 7) and version(numpy.__version__) >= (2, 4):
    pytest.skip(
        "the interpreter of this Triton turns arrays of one element into numbers, which NumPy 2.4 refuses",
        allow_module_level=True,
    )
