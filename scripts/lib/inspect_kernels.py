"""Compiles the Triton kernels ahead of time, without a GPU, and prints the resources of their machine code.

usage: scripts/inspect_kernels [--arch 90] [--kernel NAME] [--dim 512] [--variant medium] [--json] [--check]

Prints registers and spill instructions (local-memory loads and stores) per thread, shared memory per program, matrix
instructions and 16-byte loads in the code, and a lower bound of the time on an H100 SXM: bytes and operations over the
assumed peaks below. --check exits with 1 if a variant spills, exceeds the chip or lacks its tensor-core instructions.
``variants`` of each kernel file lists what is compiled.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from lib.repository import use_repository

if TYPE_CHECKING:
    from kernels.lib.variants import Variant  # fastproto_kernels, by the name of its folder

# KiB of shared memory per program (CUDA programming guide): A100; the other Ampere and Ada chips; Hopper;
# data-centre and other Blackwell. All but 90 and 100 take the tiles of family 80.
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
ARCHITECTURES = tuple(SHARED_KIB)
DEFAULT_ARCHITECTURES = (80, 90, 100)  # one per family
TENSOR_MEMORY_COLUMNS = 512  # of sm_100
# Assumed peaks of an H100 SXM (NVIDIA's datasheet, dense; exp: 16 a clock and multiprocessor at 1.755 GHz)
PEAK = {"fp16": 989e12, "bf16": 989e12, "tf32": 494e12, "fp32": 67e12, "bytes": 3.35e12, "exp": 3.7e12}
INSTRUCTIONS = {  # names in the machine code
    "wgmma": r"HGMMA",
    "mma": r"HMMA",
    "tcgen05": r"UTC\w*MMA",
    "spills": r"(?:STL|LDL)\b",
    "loads16": r"(?:LDG\.E\S*\.128|LDGSTS\S*\.128|UTMALDG|UBLKCP)",
}
ALIGNED_SIZES = ("D", "stride_row", "stride_prototype")
COLUMNS = ["kernel", "variant", "sm", "D", "tile", "warps", "stages", "registers", "spills", "shared_kib"]
COLUMNS += ["wgmma", "mma", "tcgen05", "loads16", "floor_ms", "floor_by", "problems"]


class Row(TypedDict, total=False):
    """One line of the table; a variant that does not compile has only the fields up to ``stages`` and ``problems``."""

    kernel: str
    variant: str
    sm: int
    D: int
    tile: tuple[int, ...]
    warps: int
    stages: int
    registers: int | None
    stack: int | None  # bytes
    spills: int
    shared_kib: float
    tensor_memory: int  # columns
    wgmma: int
    mma: int
    tcgen05: int
    loads16: int
    floor_ms: float
    floor_by: str
    problems: list[str]


class Compiled(NamedTuple):
    usage: str  # resource usage, output of cuobjdump
    code: str  # output of nvdisasm
    shared: int  # bytes
    tensor_memory: int  # columns


def load_kernels() -> None:
    """Makes ``import fastproto_kernels`` import the kernels/ of this repository, for compilation."""
    os.environ.pop("TRITON_INTERPRET", None)  # read at the import of the kernels; the interpreter would not compile
    use_repository()


def variants_of(family: int, dims: tuple[int, ...]) -> list[Variant]:
    """The variants of every kernel file; call :func:`load_kernels` first."""
    found: list[Variant] = []
    package = importlib.import_module("fastproto_kernels")
    for info in pkgutil.walk_packages(package.__path__, "fastproto_kernels."):
        module = importlib.import_module(info.name)
        if not info.ispkg and hasattr(module, "variants"):
            found += module.variants(family, dims)
    return found


def kernel_names() -> list[str]:
    return sorted({variant.kernel for variant in variants_of(80, default_dims())})


def default_dims() -> tuple[int, ...]:
    dims: tuple[int, ...] = importlib.import_module("fastproto_kernels.lib.variants").DIMS
    return dims


class Chosen(NamedTuple):
    arch: int
    variant: Variant


def choose(
    kernels: list[str], architectures: tuple[int, ...], dims: tuple[int, ...], names: tuple[str, ...] = ("",)
) -> list[Chosen]:
    """The variants of these kernels whose name begins with one of ``names``."""
    family_of = importlib.import_module("fastproto_kernels.lib.tile_sizes").family_of
    every = {arch: variants_of(family_of(arch // 10), dims) for arch in architectures}
    return [
        Chosen(arch, variant)
        for kernel in kernels
        for arch in architectures
        for variant in every[arch]
        if variant.kernel == kernel and variant.name.startswith(names)
    ]


def tool(name: str) -> str:
    """The path of cuobjdump or nvdisasm, in Triton's package or on PATH."""
    inside = Path(importlib.import_module("triton").__file__ or "").parent / "backends" / "nvidia" / "bin" / name
    found = str(inside) if inside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is neither in Triton's package nor on PATH; expected the CUDA binary utilities")
    return found


def disassemble(program: str, option: str, cubin: Path) -> str:
    done = subprocess.run([tool(program), option, str(cubin)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def compile_variant(arch: int, variant: Variant) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = variant.signature()
    # as at run time: tensors and their rows are 16-byte aligned
    aligned = [i for i, (name, kind) in enumerate(signature.items()) if kind.startswith("*") or name in ALIGNED_SIZES]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(variant.function, signature, dict(variant.constants), attributes)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage, code = disassemble("cuobjdump", "--dump-resource-usage", cubin), disassemble("nvdisasm", "-c", cubin)
    metadata = compiled.metadata
    return Compiled(usage, code, int(metadata.shared), int(getattr(metadata, "tmem_size", 0) or 0))


def measure(arch: int, variant: Variant) -> Row:
    row = Row(kernel=variant.kernel, variant=variant.name, sm=arch, D=variant.dim)
    row |= Row(tile=variant.sizes(), warps=variant.num_warps, stages=variant.num_stages)
    try:
        compiled = compile_variant(arch, variant)
    except Exception as error:
        return row | Row(problems=[f"does not compile: {type(error).__name__}: {str(error)[:200]}"])
    count = {name: len(re.findall(rf"\b(?:{pattern})", compiled.code)) for name, pattern in INSTRUCTIONS.items()}
    found = re.search(r"REG:(\d+) STACK:(\d+)", compiled.usage)
    registers, stack = (int(found[1]), int(found[2])) if found else (None, None)
    row |= Row(registers=registers, stack=stack, spills=count["spills"], loads16=count["loads16"])
    row |= Row(wgmma=count["wgmma"], mma=count["mma"], tcgen05=count["tcgen05"])
    row |= Row(shared_kib=round(compiled.shared / 1024, 1), tensor_memory=compiled.tensor_memory)
    milliseconds, binding = floor(variant)
    row |= Row(floor_ms=round(milliseconds, 3), floor_by=binding)
    return row | Row(problems=problems_of(row, variant.tensor_cores))


def problems_of(row: Row, tensor_cores: bool) -> list[str]:
    arch, problems = row["sm"], []
    counted = {"wgmma": row["wgmma"], "mma": row["mma"], "tcgen05": row["tcgen05"]}
    needed = {90: "wgmma", 100: "tcgen05"}.get(arch, "mma")
    if row["spills"] or row["stack"]:
        problems.append(f"spills ({row['spills']} instructions, {row['stack']} bytes of stack)")
    if row["shared_kib"] > SHARED_KIB[arch]:
        problems.append(f"{row['shared_kib']} KiB of shared memory, the chip has {SHARED_KIB[arch]}")
    if row["tensor_memory"] > TENSOR_MEMORY_COLUMNS:
        problems.append(f"{row['tensor_memory']} columns of tensor memory, the chip has {TENSOR_MEMORY_COLUMNS}")
    if tensor_cores and not counted[needed]:
        problems.append(f"no {needed} instruction")
    return problems


def floor(variant: Variant) -> tuple[float, str]:
    """(lower bound of the time on an H100 in ms, the limiting resource) of the variant's work."""
    times = {
        "bytes": variant.bytes / PEAK["bytes"],
        variant.unit: variant.flops / PEAK[variant.unit],
        "exp": variant.exps / PEAK["exp"],
    }
    bound = max(times, key=lambda name: times[name])
    return 1e3 * times[bound], bound


_chosen: list[Chosen] = []


def _measure_number(number: int) -> Row:
    return measure(*_chosen[number])


def measure_all(chosen: list[Chosen], jobs: int) -> list[Row]:
    global _chosen
    _chosen = chosen  # inherited by the forked children: jit functions cannot be pickled
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        return list(pool.map(_measure_number, range(len(chosen))))


def table(rows: list[Row]) -> str:
    lines = [COLUMNS]
    for row in rows:
        cells: dict[str, object] = {**row}
        cells |= {"tile": "x".join(map(str, row["tile"])), "problems": "; ".join(row["problems"]) or "none"}
        lines.append(["" if cells.get(name) is None else str(cells[name]) for name in COLUMNS])
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    load_kernels()
    kernels = kernel_names()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", choices=ARCHITECTURES, default=DEFAULT_ARCHITECTURES)
    parser.add_argument("--kernel", nargs="+", choices=kernels, default=kernels)
    parser.add_argument("--dim", type=int, nargs="+", default=default_dims())
    parser.add_argument("--variant", nargs="+", default=[""], help="only variants whose name begins with one of these")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of the table")
    parser.add_argument("--check", action="store_true", help="exit with 1 when any variant has a problem")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    chosen = choose(given.kernel, tuple(given.arch), tuple(given.dim), tuple(given.variant))
    if not chosen:
        parser.error("no variant has this name")
    rows = measure_all(chosen, given.jobs)
    print(json.dumps(rows) if given.json else table(rows))
    return int(given.check and any(row["problems"] for row in rows))
