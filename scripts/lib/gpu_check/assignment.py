"""The assignment on the device: whether it is optimal, and its times, on the host and on the device."""

from __future__ import annotations

import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fastproto import align, assign, reference
from fastproto.backend import resolve, use_backend
from lib.gpu_check.measuring import device, unit_rows, waiting_is
from lib.gpu_check.steps import Entries


def clustered(count: int, dim: int) -> tuple[Tensor, Tensor]:
    """Class means like those of an untrained network (a large common part, groups of about twenty), and prototypes."""
    groups = torch.randint(0, count // 20 + 2, (count,), generator=torch.Generator().manual_seed(3)).to(device())
    means = unit_rows(1, dim, 4) + unit_rows(count // 20 + 2, dim, 5)[groups] + 0.7 * unit_rows(count, dim, 6)
    return means, unit_rows(count, dim, 7)


def assignment(dry: bool) -> Entries:
    """CUDA tensors: the gap, also for degenerate class means; times of cold and warm starts."""
    if importlib.util.find_spec("numba") is None:
        yield "seconds", "not measured: column generation needs numba, not installed"
        return
    means, prototypes = clustered(*((30, 4) if dry else (1500, 32)))
    yield "choice", str(resolve("assign", means))
    for name, q in degenerate(means).items():
        yield name, proven(q, prototypes)
    with use_backend("triton"):
        turned = align(means, prototypes, starts=2)
    exact = turned.rotation.double() @ turned.rotation.double().T - torch.eye(means.shape[1], device=device())
    yield "align", {"seconds": turned.seconds, "rounds": turned.rounds, "turn_error": float(exact.abs().max())}
    shapes = ((40, 4),) if dry else ((10_000, 128), (10_000, 512), (100_000, 512))
    for count, dim in shapes:
        yield f"C={count} D={dim}", assignment_times(*clustered(count, dim), dry)
    if not dry:
        means, prototypes = clustered(10_000, 512)
        first = assign(means, prototypes, method="column_generation")
        for name, previous in (("cold", None), ("unchanged", first)):
            call = partial(assign, means, prototypes, previous=previous, method="column_generation")
            yield f"where a {name} one spends it, C=10000 D=512", profiled(call)


def degenerate(means: Tensor) -> dict[str, Tensor]:
    cases = {"clustered": means, "collapsed": means[:1] + 1e-5 * means, "a third unseen": means.clone()}
    cases |= {"half the same": means.clone(), "signs": means.sign(), "in pairs": means[torch.arange(len(means)) // 2]}
    cases["a third unseen"][::3], cases["half the same"][::2] = 0, means[0]
    return cases


def proven(means: Tensor, prototypes: Tensor) -> dict[str, object]:
    """The gap of an assignment, beside the gap in float64 of its prices: an upper bound on what another would gain."""
    with use_backend("triton"):
        found = assign(means, prototypes, method="column_generation")
    scores = reference.scores(means.double(), prototypes.double()).cpu()
    value = float(reference.objective(scores, found.permutation.cpu()))
    gap = float(reference.duality_gap(scores, found.permutation.cpu(), found.prices.cpu()))
    optimal = gap <= 1e-6 * (value - float(scores.mean(1).sum())) + found.rounding_floor
    honest = found.certified and abs(gap - found.gap) <= found.rounding_floor
    return {"optimal": optimal, "gap": found.gap, "honest": honest, "reason": found.reason}


def assignment_times(means: Tensor, prototypes: Tensor, dry: bool) -> dict[str, object]:
    """Seconds without and with a previous assignment, and extra memory in MiB."""
    seconds: dict[str, list[float]] = {"cold": [], "unchanged": []}
    if not dry:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with use_backend("triton" if dry else "auto"):
        first = assign(means, prototypes, method="column_generation")
        for name, previous, calls in (("cold", None, 3), ("unchanged", first, 15)):
            for _ in range(1 if dry else calls):
                begin = time.perf_counter()
                found = assign(means, prototypes, previous=previous, method="column_generation")
                seconds[name].append(time.perf_counter() - begin)  # the call synchronises: its result is on the host
    memory = "not measured" if dry else (torch.cuda.max_memory_allocated() - before) / 2**20
    times = {f"{name}_s": statistics.median(taken) for name, taken in seconds.items()}
    facts = {"certified": first.certified, "relative_gap": first.relative_gap, "changed": found.changed}
    return times | facts | {"passes": first.passes, "reason": first.reason, "extra_mib": memory}


def profiled(call: Callable[[], object]) -> dict[str, object]:
    """Host and device time of an assignment, its synchronisations, its kernel launches, and the longest launches."""
    call()
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        with waiting_is("warn"):
            call()
    begin = time.perf_counter()
    call()
    whole = 1e6 * (time.perf_counter() - begin)
    with torch.profiler.profile() as profile:
        call()
    on_device = [event for event in profile.events() if event.device_type.name == "CUDA"]
    spent = sorted(((event.time_range.elapsed_us(), event.name[:60]) for event in on_device), reverse=True)
    total = sum(microseconds for microseconds, _ in spent)
    times = {"whole_us": whole, "device_us": total, "host_us": whole - total}
    return times | {"waits": len(waits), "launches": len(spent), "longest_us": spent[:8]}
