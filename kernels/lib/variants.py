"""The record that every kernel file exports: the compiled forms of its kernels and the work that each form does.

``scripts/inspect_kernels`` compiles them ahead of time, without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from triton.runtime.jit import JITFunction

from .tile_sizes import RowBlock, Tile

DIMS = (64, 128, 256, 512)
WIDE_DIMS = (1024, 2048, 4096)  # further dimensions of the row kernels
ROWS = 32768  # points and others, or samples, for which the work is counted
TYPE_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}

Constant = int | float | str | RowBlock | Tile | None


@dataclass(frozen=True)
class Variant:
    """One compiled form of a kernel.

    ``types`` holds the element type of each pointer, unless it is float32, and the type of each number, unless it is
    int32. ``constants`` holds the constexpr parameters, the pointers that are None, and the strides that are 1.
    """

    kernel: str
    name: str
    dim: int
    function: JITFunction = field(repr=False)
    types: Mapping[str, str] = field(repr=False)
    constants: Mapping[str, Constant] = field(repr=False)
    num_warps: int = 4
    num_stages: int = 3
    tensor_cores: bool = False
    bytes: float = 0
    flops: float = 0
    exps: float = 0
    unit: str = "fp32"  # of the floating-point operations

    def signature(self) -> dict[str, str]:
        """Triton's type of each parameter.

        Raises:
            ValueError: a name that is no parameter, or a constexpr parameter without a value.
        """
        parameters = self.function.arg_names
        constexprs = {parameters[i] for i in self.function.constexprs}
        wrong = ((self.types.keys() | self.constants.keys()) - set(parameters)) | (constexprs - self.constants.keys())
        if wrong:
            raise ValueError(f"{self.kernel} {self.name}: {sorted(wrong)} do not fit the parameters {parameters}")

        def type_of(name: str) -> str:
            if name in self.constants:
                return "constexpr"
            return "*" + self.types.get(name, "fp32") if name.endswith("_ptr") else self.types.get(name, "i32")

        return {name: type_of(name) for name in parameters}

    def sizes(self) -> tuple[int, ...]:
        """The sizes of a program's block."""
        found: list[int] = []
        for name, value in self.constants.items():
            if isinstance(value, RowBlock | Tile):
                found += value.sizes()
            elif name.startswith("BLOCK"):
                assert isinstance(value, int)
                found.append(value)
        return tuple(found)


def row_kernel_dims(dims: tuple[int, ...]) -> tuple[int, ...]:
    """``dims``, and the wide dimensions as well if ``dims`` are the default ones."""
    return dims + WIDE_DIMS if dims == DIMS else dims
