"""Imports run downwards only, and `import fastproto` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

# A module may import from the layers above its own line in this list, and from its own layer.
LAYERS = [
    ["fastproto_kernels"],
    [
        "fastproto.reference",
        "fastproto.files",
        "fastproto.checks",
        "fastproto.pages",
        "fastproto.cancellation",
        "fastproto.stopping",
        "fastproto.arguments",
        "fastproto.text_files",
        "fastproto.array_files",
    ],
    ["fastproto.backend", "fastproto.compiled"],
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
LEAVES = ("fastproto.files", "fastproto.text_files")  # of the standard library only: any module may import them


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
                assert home is None or name.startswith((home, *LEAVES)), f"{module} must not import {name}"
    assert seen > 20


# One after the other in one process: what is absent after a later line was absent after those before.
LIGHT = [
    ("import fastproto", ["torch", "lightning", "torchvision", "matplotlib", "fastproto_kernels"]),
    ("from fastproto.training import TrainConfig", ["torch", "lightning"]),
    ("import fastproto.cli", ["torch", "lightning", "yaml"]),
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
