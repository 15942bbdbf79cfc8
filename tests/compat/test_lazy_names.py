"""Names of ``fastproto.compat`` load on first use and say what to install."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from fastproto.data.optional import require

NEEDS = [
    ("pml", "PrototypeLoss", "pytorch_metric_learning", "pytorch-metric-learning", "integrations"),
    ("lightning", "RenewAssignment", "lightning", "lightning", "train"),
    ("transformers", "RenewAssignment", "transformers", "transformers", "integrations"),
]


@pytest.mark.parametrize(("package", "name", "module", "distribution", "extra"), NEEDS)
def test_a_missing_package_is_named_when_it_is_used(
    package: str, name: str, module: str, distribution: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    found = import_module(f"fastproto.compat.{package}")
    with pytest.raises(ImportError) as caught:
        getattr(found, name)
    assert f"needs {distribution}, which is not installed: pip install 'fastproto[{extra}]'" in str(caught.value)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        found.Nothing  # noqa: B018 - the access is the test


def test_importing_needs_none_of_them() -> None:
    absent = [module for _, _, module, _, _ in NEEDS] + ["torch", "timm", "accelerate"]
    code = "import sys\nimport fastproto.compat, fastproto.compat.dl2pa, fastproto.compat.pml\n"
    code += "import fastproto.compat.lightning, fastproto.compat.transformers\n"
    code += f"assert not [m for m in {absent} if m in sys.modules]\nimport fastproto.compat.hpn, fastproto.compat.etf\n"
    code += f"assert not [m for m in {[m for m in absent if m != 'torch']} if m in sys.modules]\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_authors_interface_loads() -> None:
    for package in ("fastproto.compat", "fastproto.compat.dl2pa"):
        module = import_module(package)
        assert module.__all__ and all(getattr(module, name) is not None for name in module.__all__)


def test_a_package_that_is_installed_and_fails_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        require("broken_package", "a loss", extra="integrations")
    assert str(caught.value) == (
        "a loss needs broken_package, which cannot be imported (No module named 'no_such_dependency'): "
        "pip install 'fastproto[integrations]'"
    )
