"""Imports run downwards only, and `import fastproto` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# A module may import from the layers above its own line in this list, and from its own layer.
LAYERS = [
    ["fastproto_kernels"],
    ["fastproto.reference", "fastproto.files", "fastproto.checks", "fastproto.pages"],
    ["fastproto.backend"],
    [
        "fastproto.rows",
        "fastproto.operators",
        "fastproto.sweep",
        "fastproto.scan",
        "fastproto.ranks",
        "fastproto.flags",
        "fastproto.normalise",
        "fastproto.mixup",
    ],
    [
        "fastproto.ipm",
        "fastproto.means",
        "fastproto.step",
        "fastproto.nearest",
        "fastproto.potential",
        "fastproto.uniformity",
    ],
    ["fastproto.functional"],
    ["fastproto.prototypes", "fastproto.assignment"],
    [
        "fastproto.exact",
        "fastproto.state",
        "fastproto.head",
        "fastproto.baselines",
        "fastproto.data",
        "fastproto.models",
        "fastproto.pictures",
    ],
    ["fastproto.training"],
    ["fastproto.cli"],
]
ALONE = ("fastproto.reference", "fastproto.data", "fastproto.models", "fastproto.pictures", "fastproto.files")


def layer(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    return None


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
    for folder, package in (("fastproto", "fastproto"), ("kernels", "fastproto_kernels")):
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root / folder).with_suffix("").parts
            listed.append((".".join([package, *(p for p in parts if p != "__init__")]), file))
    return listed


def test_imports_run_downwards(root: Path) -> None:
    seen = 0
    for module, file in modules(root):
        if module == "fastproto":
            continue
        own = layer(module)
        assert own is not None, f"{module} has no layer: name it in LAYERS"
        package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
        for name in imports(file, package):
            assert name != "kernels" and not name.startswith("kernels."), f"{module}: import fastproto_kernels instead"
            if name.startswith("fastproto") and name != "fastproto.__version__" and name != "fastproto":
                seen += 1
                other = layer(name)
                assert other is not None and other <= own, f"{module} imports {name}, which lies above it"
                home = next((a for a in ALONE if module == a or module.startswith(a + ".")), None)
                assert home is None or name.startswith(home), f"{module} must not import {name}"
    assert seen > 20


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import fastproto", ["torch", "lightning", "torchvision", "matplotlib", "fastproto_kernels"]),
        ("from fastproto import PrototypeHead, assign", ["lightning", "torchvision", "matplotlib", "sklearn"]),
        ("from fastproto.training import TrainConfig", ["torch", "lightning"]),
        ("import fastproto.data, fastproto.models", ["lightning", "torchvision", "matplotlib", "sklearn"]),
        (
            "import torch, fastproto as f; f.uniformity_loss(torch.eye(3)); f.gaussian_potential(torch.eye(3))",
            ["torch._dynamo"],
        ),
        ("import fastproto.cli", ["torch", "lightning", "jsonargparse"]),
    ],
)
def test_imports_stay_light(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*[m for m in {absent} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_help_imports_neither_torch_nor_lightning() -> None:
    code = (
        "import sys\nfrom fastproto.cli import train\n"
        "try:\n    train(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
