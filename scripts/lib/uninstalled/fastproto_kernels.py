"""Replaces an installed ``fastproto_kernels`` by the modules of ``kernels/`` (see ``lib.repository``)."""

from pathlib import Path

_KERNELS = Path(__file__).resolve().parents[3] / "kernels"
__path__ = [str(_KERNELS)]
exec(compile((_KERNELS / "__init__.py").read_text(encoding="utf-8"), str(_KERNELS / "__init__.py"), "exec"))
