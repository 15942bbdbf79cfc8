"""Prototypes for (C, D): a closed form where there is one, else a search whose result is cached on disk."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import Literal, TypeAlias, get_args

import torch

from fastproto.cpu.shared_rows import one_thread
from fastproto.prototypes.bounds import uniformity_bound
from fastproto.prototypes.budget import PATIENCE, Budget
from fastproto.prototypes.cache import CacheFile
from fastproto.prototypes.closed_forms import Objective, closed_form
from fastproto.prototypes.codes import binary_code
from fastproto.prototypes.files import Prototypes, make
from fastproto.prototypes.quick_search import search_quickly
from fastproto.prototypes.search import or_code, search_max_cosine, search_uniform
from fastproto.prototypes.sgd import check_sgd, sgd
from fastproto.prototypes.starts import random_start, random_value
from fastproto.support.checks import check_classes, check_seed, check_sharpness, default_cpu, real, whole
from fastproto.support.options import Effort, Precision, SgdForm, check_options

Method: TypeAlias = Literal["auto", "lbfgs", "binary_code", "sgd"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
METHODS: tuple[Method, ...] = get_args(Method)
SHARED = 4_000_000  # C·D from which more than one thread pays in sums of vectors, and not in passes alone
RECIPE = 5  # part of the cache's key: increment it when the same arguments give other prototypes


def estimate_prototypes(
    num_classes: int,
    dim: int,
    *,
    objective: Objective = "uniform",
    t: float = 2.0,
    method: Method = "auto",
    effort: Effort = "normal",
    seed: int = 0,
    device: torch.device | str | None = None,
    max_passes: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
    cache: bool = True,
    precision: Precision | None = None,
    form: SgdForm = "eq5",
    subset_size: int | None = None,
    lr: float = 0.1,
    iterations: int = 1000,
    trace: list[tuple[float, float, float]] | None = None,
) -> Prototypes:
    """C unit vectors spread evenly over the sphere in D dimensions: a closed form where there is one, else a search.

    A search that took longer than two seconds prints what it reached, in a line on standard error. Ctrl-C ends it: the
    best prototypes so far are returned.

    Args:
        num_classes: C >= 2.
        dim: D >= 2.
        objective: ``uniform`` minimises L_uni at ``t``; ``max_cosine`` the cosine of the closest pair.
        t: sharpness of the Gaussian potential, > 0; for ``max_cosine`` the first of a rising series.
        method: ``auto``, a closed form or a search; ``lbfgs`` searches even where there is a closed form;
            ``binary_code`` takes ±1 words (D a power of two); ``sgd`` is the paper's descent, for comparison.
        effort: ``normal`` ends a search when, at t = 2, about 1 % of the gain over random points is left
            (:class:`fastproto.prototypes.stopping.NearTheEnd`), and has few starts; ``best`` continues, for figures
            that are compared. No effect on closed forms, codes and ``sgd``.
        seed: of the random starts (closed forms and codes need none).
        device: of the search and of the vectors; None is the CPU.
        max_passes: limit on the passes over all pairs, in total; None leaves it to the search.
        time_limit: seconds; the best so far is returned, and not cached.
        progress: show on standard error how far a search is; None does so after two seconds, if that is a terminal.
            False also leaves out the line at the end.
        cache: keep and reuse the result in ``$XDG_CACHE_HOME/fastproto`` (or ``~/.cache/fastproto``).
        precision: of the matrix products at the start of a search; None is ``high`` under ``normal`` and ``highest``
            under ``best``, which always finishes at ``highest`` (on Triton with three float16 products for each, which
            change the gradient by 3e-5).
        form, subset_size, lr, iterations: of ``sgd`` alone, see :func:`fastproto.prototypes.sgd.sgd`.
        trace: a list to which a search appends (passes spent, t, L_uni) after each evaluation; the cache is then not
            read.

    Returns:
        Prototypes: vectors [C, D] float32, the passes and the seconds spent; ``quality`` is measured on access.

    Raises:
        TypeError, ValueError: C < 2, D < 2, t <= 0, an unknown objective, method, effort, precision or form, no code of
            that size, limits below 1.

    Source: Eq. 4-5 of Saadabadi et al., CVPR 2024.
    """
    num_classes, dim = check_classes(num_classes, dim)
    t, seed = check_sharpness(t), check_seed(seed)
    max_passes, time_limit = _limits(max_passes, time_limit)
    precision = ("high" if effort == "normal" else "highest") if precision is None else precision
    _check(objective, method, effort, precision)
    subset_size, lr, iterations = check_sgd(num_classes, form, subset_size, lr, iterations)
    began = time.perf_counter()
    known = closed_form(num_classes, dim, objective, t) if method == "auto" else None
    if method == "binary_code":
        known = binary_code(num_classes, dim), "binary_code"
    if known is not None:
        return make(known[0], t, known[1], seconds=time.perf_counter() - began, device=device)
    options = (form, subset_size, lr, iterations) if method == "sgd" else (effort, precision)
    key = (num_classes, dim, t, objective, method, options, seed, max_passes, RECIPE)
    kept = CacheFile(num_classes, dim, key)
    if cache and trace is None:
        found = kept.read(t, device)
        if found is not None:
            return found
    deadline = None if time_limit is None else began + time_limit
    budget = Budget(max_passes, deadline, progress, trace=[] if trace is None else trace)
    size = num_classes, dim, t, seed
    with default_cpu(), one_thread() if num_classes * dim < SHARED else contextlib.nullcontext():
        if method == "sgd":
            start = random_start(num_classes, dim, seed, device)
            vectors = sgd(
                start, t, budget, form=form, subset_size=subset_size, lr=lr, iterations=iterations, seed=seed
            )  # fmt: skip
            name = "sgd"
        elif objective == "max_cosine":
            vectors, name = search_max_cosine(*size, budget, device=device, codes=method == "auto", effort=effort)
        else:
            search = search_quickly if effort == "normal" else search_uniform
            vectors, name = search(*size, budget, device=device, precision=precision), "lbfgs"
            if method == "auto":
                vectors, name = or_code(vectors, t, budget)
    budget.finish()
    seconds = time.perf_counter() - began
    found = make(vectors, t, name, passes=budget.spent, seconds=seconds, device=device)
    if budget.interrupted:
        print(
            f"fastproto: interrupted after {found.passes} passes; going on with the best prototypes so far",
            file=sys.stderr,
        )
    elif cache and time_limit is None:
        kept.write(found)
    if progress is not False and seconds > PATIENCE and not budget.interrupted:
        print(_reached(found, objective, budget), file=sys.stderr)
    return found


def _reached(found: Prototypes, objective: Objective, budget: Budget) -> str:
    """What a search reached, for those who waited for it."""
    count, dim = found.vectors.shape
    said = f"fastproto: prototypes for C = {count}, D = {dim}: {found.seconds:.0f} s, {found.passes} passes"
    if found.method == "binary_code":
        return f"{said}, a binary code"
    if found.method == "lbfgs" and objective == "uniform":
        random, bound = random_value(count, dim, found.t), uniformity_bound(count, dim, found.t)
        said += f", L_uni {budget.lowest():.6f} (random points {random:.6f}, no set below {bound:.6f})"
    if budget.near_the_end:
        said += ", within about 1 % of what a longer search gains; effort='best' goes on"
    return said


def _check(objective: Objective, method: Method, effort: Effort, precision: Precision) -> None:
    if objective not in OBJECTIVES or method not in METHODS:
        raise ValueError(
            f"objective {objective!r} with method {method!r}; expected one of {OBJECTIVES} and of {METHODS}"
        )
    check_options(effort=effort, precision=precision)


def _limits(max_passes: int | None, time_limit: float | None) -> tuple[int | None, float | None]:
    if max_passes is not None:
        max_passes = whole("max_passes", max_passes)
        if max_passes < 1:
            raise ValueError(f"max_passes is {max_passes}; expected at least 1")
    if time_limit is not None:
        time_limit = real("time_limit", time_limit)
        if not 0 < time_limit < math.inf:
            raise ValueError(f"time_limit is {time_limit}; expected seconds > 0, or None for no limit")
    return max_passes, time_limit
