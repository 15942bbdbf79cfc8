"""What ``assign`` and ``solve`` are given: looked at before anything is solved, and brought from a GPU in one wait."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastproto.assignment.certificate import Assignment
from fastproto.checks import check_finite, check_matrix, check_permutation, shape_of


def check_memory(size: int, instead: str) -> None:
    need = 3 * 8 * size * size  # the scores, the solver's costs, one temporary
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        raise ValueError(
            f"{size} classes need {need / 2**30:.0f} GiB as a matrix and this machine has {have / 2**30:.0f}; "
            f"use {instead}"
        )


def check_factors(class_means: Tensor, prototypes: Tensor) -> None:
    check_matrix("class_means", class_means)
    check_matrix("prototypes", prototypes)
    if class_means.shape != prototypes.shape:
        raise ValueError(
            f"class_means are {shape_of(class_means)} and prototypes {shape_of(prototypes)}; expected the same [C, D]"
        )


def fetched(norms: Tensor, total: Tensor, previous: Assignment | None) -> tuple[Tensor, Tensor, Assignment | None]:
    """The same on the CPU; one wait for a GPU."""
    there = [norms, total]
    old = () if previous is None else (previous.permutation, previous.prices)
    if all(isinstance(x, Tensor) and not x.is_complex() for x in old):  # else the checks say what they are
        there += old
    flat = torch.cat([x.to(norms.device, torch.float64).reshape(-1) for x in there]).cpu()
    lengths, found, *known = (
        part.view(x.shape).to(x.dtype, copy=True)
        for x, part in zip(there, flat.split([x.numel() for x in there]), strict=True)
    )
    if previous is not None and known:
        previous = replace(previous, permutation=known[0], prices=known[1])
    return lengths, found, previous


def checked(previous: Assignment | None, size: int) -> Assignment | None:
    if previous is None:
        return None
    permutation: Any = previous.permutation
    if isinstance(permutation, Tensor):  # else the check says what it is
        permutation = permutation.cpu()
    check_permutation("previous.permutation", permutation, size)
    prices: Any = previous.prices
    if not isinstance(prices, Tensor) or not prices.is_floating_point() or prices.shape != (size,):
        given = f"{prices.dtype} {shape_of(prices)}" if isinstance(prices, Tensor) else type(prices).__name__
        raise ValueError(f"previous.prices are {given}; expected floating-point numbers [{size}] as assign gives them")
    prices = prices.cpu().double()
    check_finite("previous.prices", prices[:, None])
    return replace(previous, permutation=permutation, prices=prices)
