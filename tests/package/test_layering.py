"""Imports run downwards only, and `import fastproto` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# The rooms, from the ground up: a file may import from rooms on lines above its own, and from its own room.
ROOMS = [
    ["fastproto_kernels.lib"],
    ["fastproto_kernels"],
    ["fastproto.support", "fastproto.reference"],
    ["fastproto.backend"],
    ["fastproto.cpu"],
    ["fastproto.ops"],
    ["fastproto.functional"],
    ["fastproto.assignment", "fastproto.prototypes"],
    ["fastproto.head_state"],
    ["fastproto.head"],
    ["fastproto.baselines"],
    ["fastproto.data", "fastproto.models", "fastproto.plots", "fastproto.recipes"],
    ["fastproto.training"],
    ["fastproto.compat"],
    ["fastproto.cli"],
    ["fastproto_benchmarks"],
]
ALONE = ("fastproto.reference", "fastproto.data", "fastproto.models", "fastproto.plots", "fastproto.support")
# Of the standard library only.
LEAVES = tuple(f"fastproto.support.{name}" for name in ("atomic_files", "cache_folder", "data_options", "text_files"))


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> tuple[int, str] | None:
    """The number of its line and its name."""
    return next(((n, room) for n, line in enumerate(ROOMS) for room in line if inside(module, room)), None)


def imports(file: Path, package: list[str]) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            found += [f"{module}.{alias.name}" for alias in node.names] if module == "fastproto" else [module]
    return found


def modules(root: Path) -> list[tuple[str, Path]]:
    listed = []
    packages = (("fastproto", "fastproto"), ("kernels", "fastproto_kernels"), ("benchmarks", "fastproto_benchmarks"))
    for folder, package in packages:
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            listed.append((".".join([package, *(p for p in parts if p != "__init__")]), file))
    return listed


def graph(root: Path) -> dict[str, set[str]]:
    """Each module with those of the project that it imports, at any level of the file."""
    files = dict(modules(root))
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
        names = set(imports(file, package)) - {"fastproto", "fastproto.__version__"}
        assert not any(inside(name, "kernels") for name in names), f"{module}: import fastproto_kernels instead"
        names = {name if name in files else name.rpartition(".")[0] for name in names if name.startswith("fastproto")}
        assert names <= files.keys(), f"{module} imports {sorted(names - files.keys())}, which are no files"
        public = (
            {"fastproto"} if inside(module, "fastproto_benchmarks") else set()
        )  # its public names, as users import them
        found[module] = names - public
    return found


def test_imports_run_downwards(root: Path) -> None:
    found = graph(root)
    assert sum(map(len, found.values())) > 200
    for module, names in found.items():
        if module == "fastproto":
            continue
        own = room_of(module)
        assert own is not None, f"{module} has no room: name it in ROOMS"
        for name in names:
            other = room_of(name)
            assert other is not None, name
            same_line = other[0] == own[0] and other[1] != own[1]
            assert other[0] <= own[0] and not same_line, f"{module} imports {name}, which does not lie below it"
            assert own[1] not in ALONE or inside(name, own[1]) or name in LEAVES, f"{module} must not import {name}"


def test_no_file_imports_itself_by_way_of_others(root: Path) -> None:
    found = graph(root)
    del found["fastproto"]  # its names load on first use
    try:
        order = list(TopologicalSorter(found).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
    assert len(order) == len(found)


# One after the other in one process: what is absent after a later line was absent after those before.
LIGHT = [
    ("import fastproto", ["torch", "lightning", "torchvision", "matplotlib", "fastproto_kernels"]),
    ("from fastproto.training import TrainConfig", ["torch", "lightning"]),
    ("import fastproto.cli", ["torch", "lightning", "yaml"]),
    ("import fastproto.compat.dl2pa.settings", ["torch", "lightning", "yaml"]),
    ("try: fastproto.cli.train(['--help'])\nexcept SystemExit: pass", ["torch", "lightning"]),
    ("import fastproto.data, fastproto.models", ["lightning", "torchvision", "matplotlib", "sklearn", "PIL"]),
    ("from fastproto import PrototypeHead, assign", ["lightning", "torchvision", "matplotlib", "sklearn"]),
    (
        "import torch; fastproto.uniformity_loss(torch.eye(3)); fastproto.gaussian_potential(torch.eye(3))",
        ["torch._dynamo"],
    ),
    ("fastproto.assign(torch.eye(8), torch.eye(8))", ["numba", "lightning", "torchvision", "matplotlib", "sklearn"]),
]


def test_imports_stay_light() -> None:
    code = "import sys\n" + "".join(
        f"{statement}\nfound = [m for m in {absent} if m in sys.modules]\nassert not found, ({statement!r}, found)\n"
        for statement, absent in LIGHT
    )
    code += "fastproto.assign(torch.eye(8), torch.eye(8), method='column_generation')\nassert 'numba' in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
