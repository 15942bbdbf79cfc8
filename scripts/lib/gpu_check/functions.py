"""The public functions on the kernels: chosen backend, errors, times, host synchronisation, torch.compile."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from fastproto import reference
from fastproto.backend import resolve, use_backend
from fastproto.functional import gaussian_potential, uniformity_loss
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.sgd import sgd
from lib.gpu_check.measuring import milliseconds, unit_rows, waiting_is
from lib.gpu_check.steps import Entries


def step(w: Tensor, t: float, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """The uniformity loss of all rows or of the subset ``rows``, and its gradient."""
    w = w.detach().requires_grad_()
    value = uniformity_loss(w, t=t, subset=rows)
    return value.detach(), torch.autograd.grad(value, w)[0]


def functions(dry: bool) -> Entries:
    w = unit_rows(*((24, 4) if dry else (5000, 64)))
    few = torch.arange(0, len(w), 4, device=w.device)
    yield "choice", str(resolve("gaussian_potential", w))
    with use_backend("triton"):
        for (t, margin), rows in itertools.product(((2.0, 1e-5), (50.0, 1e-3)), (None, few)):
            value, gradient = step(w, t, rows)
            exact = w.double().requires_grad_()
            true = reference.uniformity_loss(exact, t, rows)
            (truth,) = torch.autograd.grad(true, exact)
            errors = abs(float(value - true)), float((gradient - truth).norm() / truth.norm())
            found = {"value": errors[0], "gradient": errors[1], "within": bool(max(errors) <= margin)}
            yield f"uniformity_loss t={t:g} {'subset' if rows is few else 'all rows'}", found
        yield "gaussian_potential", milliseconds(lambda: gaussian_potential(w), dry)
        yield "uniformity_loss and gradient", milliseconds(lambda: step(w, 2.0, None), dry)
        steps = 2 if dry else 100
        took = milliseconds(lambda: sgd(w, 2.0, Budget(), subset_size=len(w), iterations=steps), dry)
        yield f"{steps} steps of sgd on all rows", took
        if not dry:
            with waiting_is("error"):
                step(w, 2.0, few)
                step(w, 2.0, None)
            yield "waits for the device", "never"
            compiled = torch.compile(lambda w: uniformity_loss(w), fullgraph=True)
            yield "compiled", "same bits" if torch.equal(compiled(w), uniformity_loss(w)) else "DIFFERENT BITS"
