"""Which implementation an op runs on, and why: ``triton`` for CUDA tensors, ``numba`` or ``torch`` for the others.

``resolve("gaussian_potential", points)`` prints as ``torch: the tensors are on the CPU``. Kernels are imported on first
use.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fastproto.support.options import Backend, check_options

KERNELS = {  # launcher -> its module in fastproto_kernels
    "gaussian_potential": "gaussian_potential",
    "sphere_step_": "sphere_step",
    "ipm_loss": "ipm_loss",
    "update_class_means_": "update_class_means",
    "head_step_": "head_step",
    "top_scores": "top_scores",
    "centre_factors": "centre_factors",
    "best_listed": "best_listed",
    "sinkhorn_sweep": "log_sum_exp",
}
LAUNCHERS = {"nearest_prototypes": "top_scores", "assign": "top_scores"}  # op -> launcher, where the names differ
TRITON_OPS = sorted(KERNELS.keys() - set(LAUNCHERS.values()) | LAUNCHERS.keys())
NUMBA_OPS = ("ipm_loss", "update_class_means_", "head_step_", "nearest_prototypes", "assign")
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST_CAPABILITY = (8, 0)  # the first with asynchronous copies and bfloat16 products

_default: ContextVar[Backend] = ContextVar("fastproto_backend", default="auto")


@dataclass(frozen=True)
class Choice:
    """A backend and the reason for choosing it."""

    backend: str
    reason: str
    forced: bool = field(default=False, compare=False)  # the caller named this backend

    @classmethod
    def asked_for(cls, backend: Backend) -> Choice:
        """The backend that the caller named."""
        return cls(backend, "asked for", forced=True)

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}"


@contextlib.contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Set the default backend of ops inside a ``with`` block.

    Args:
        backend: ``auto``, ``triton``, ``numba`` or ``torch``.

    Raises:
        ValueError: an unknown backend.
    """
    check_options(backend=backend)
    token = _default.set(backend)
    try:
        yield
    finally:
        _default.reset(token)


def resolve(op: str, *tensors: Tensor, backend: Backend = "auto") -> Choice:
    """Choose the backend of ``op`` for these tensors, without a device synchronisation.

    Args:
        op: name of a public function, such as ``gaussian_potential``.
        tensors: its tensor arguments.
        backend: ``triton``, ``numba``, ``torch`` or ``auto``: the backend of :func:`use_backend`, else Triton for CUDA
            tensors that it can run on, else numba where it has a kernel for the op, else torch.

    Raises:
        ValueError, TypeError, ImportError: an unknown backend, tensors on several devices, or a request for ``triton``
            or ``numba`` where it cannot run; the message says why and what to do.
    """
    if backend != "auto":
        check_options(backend=backend)
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        named = ", ".join(sorted(map(str, devices)))
        raise ValueError(f"{op} got tensors on {named}; expected one device: move them with .to(device)")
    asked = backend if backend != "auto" else _default.get()
    if asked == "torch":
        return Choice.asked_for("torch")
    if asked == "numba" or (asked == "auto" and not _on_cuda(tensors)):
        no_numba = _numba_obstacle(op, tensors)
        if no_numba is None:
            return Choice.asked_for("numba") if asked == "numba" else Choice("numba", "the tensors are on the CPU")
        if asked == "numba":
            raise ValueError(
                f"{op} cannot run on the numba backend: {no_numba}; pass backend='torch' or leave it at 'auto'"
            )
    obstacle = _obstacle(op, tensors)
    if asked == "triton":
        if obstacle is not None:
            raise obstacle.error
        return Choice.asked_for("triton")
    if obstacle is not None:
        return Choice("torch", obstacle.reason)
    if not _on_cuda(tensors):  # Triton's interpreter could run it, but it is for tests
        return Choice("torch", "the tensors are on the CPU")
    return Choice("triton", f"the tensors are on {torch.cuda.get_device_name(tensors[0].device)}")


def kernel(name: str) -> Callable[..., Any]:
    """The launcher ``name``, a key of :data:`KERNELS`; its module is imported on first use."""
    launcher: Callable[..., Any] = getattr(importlib.import_module(f"fastproto_kernels.{KERNELS[name]}"), name)
    return launcher


@dataclass(frozen=True)
class _Obstacle:
    reason: str
    error: Exception


def _on_cuda(tensors: tuple[Tensor, ...]) -> bool:
    return bool(tensors) and tensors[0].device.type == "cuda"


def _numba_obstacle(op: str, tensors: tuple[Tensor, ...]) -> str | None:
    """Why numba cannot run ``op`` on these tensors, or None."""
    if op not in NUMBA_OPS:
        return f"numba has kernels for {', '.join(NUMBA_OPS)} only"
    if any(x.device.type != "cpu" for x in tensors):
        return "the tensors are not on the CPU"
    if any(x.is_floating_point() and x.dtype not in KERNEL_DTYPES for x in tensors):
        return "numba kernels take float32, bfloat16 and float16"
    return None if _installed("numba") else "numba is not installed (pip install numba)"


def _obstacle(op: str, tensors: tuple[Tensor, ...]) -> _Obstacle | None:
    """Why the kernel of ``op`` cannot take these tensors, or None."""
    instead = "pass backend='torch' or leave it at 'auto'"
    if op not in TRITON_OPS:
        return _Obstacle(
            f"{op} has no Triton kernel",
            ValueError(f"{op} has no Triton kernel; expected one of {', '.join(TRITON_OPS)}: {instead}"),
        )
    odd = next((x.dtype for x in tensors if x.is_floating_point() and x.dtype not in KERNEL_DTYPES), None)
    if odd is not None:
        return _Obstacle(
            f"the kernels do not take {odd}",
            TypeError(f"{op} got {odd} for the triton backend; expected float32, bfloat16 or float16: {instead}"),
        )
    if not _installed("triton"):
        return _Obstacle(
            "Triton is not installed",
            ImportError(f"the triton backend needs Triton, which is not installed: pip install triton, or {instead}"),
        )
    device = tensors[0].device if tensors else torch.device("cpu")
    if device.type == "cpu":
        if _interpreted():
            return None
        return _Obstacle(
            "the tensors are on the CPU",
            ValueError(
                f"{op} got CPU tensors for the triton backend; expected CUDA tensors: {instead} "
                "(tests may set TRITON_INTERPRET=1 before the kernels are first imported)"
            ),
        )
    if device.type != "cuda" or torch.version.hip is not None:
        return _Obstacle(
            f"the kernels are made for NVIDIA GPUs, not for {device}",
            ValueError(f"{op} got tensors on {device} for the triton backend; expected an NVIDIA GPU: {instead}"),
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        name = f"{torch.cuda.get_device_name(device)} (sm_{capability[0]}{capability[1]})"
        return _Obstacle(
            f"{name} is older than sm_80",
            ValueError(f"{op} got tensors on {name} for the triton backend; expected sm_80 or newer: {instead}"),
        )
    return None


@cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _interpreted() -> bool:
    """Whether the kernels run, or once imported will run, under Triton's interpreter."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return False
    return type(importlib.import_module("fastproto_kernels.lib.common").load_tile).__name__ == "InterpretedFunction"
