#!/usr/bin/env python3
"""Checks and times the kernels on a CUDA machine that has nothing but PyTorch and Triton; nothing is installed.

usage: scripts/gpu_check OUT [--tune] [--dry-run]

Each step is a process of its own with a time limit, so that one that fails or hangs costs only its own results. What
has no times in it runs first, side by side; then what is timed, alone. OUT gets results.json (GPU, versions, commit,
every number) and a log for each step; all of it takes less than nine minutes. --tune also searches block sizes in the
time that is left. --dry-run runs the same steps on tiny shapes under Triton's interpreter, to test this script without
a GPU: its times mean nothing. FASTPROTO_COMMIT names the commit of a copied tree, whose own git may not know it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import itertools
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 520.0  # seconds for everything
Entry = tuple[str, Any]


def device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def milliseconds(call: Callable[[], object], dry: bool, seconds: float = 0.4) -> dict[str, float]:
    """Median, least and number of timed calls, after a warm-up; CUDA events on a GPU."""
    import torch

    if dry:
        begin = time.perf_counter()
        call()
        return {"median_ms": 1e3 * (time.perf_counter() - begin), "calls": 1}
    times: list[float] = []
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin < seconds and len(times) < 200):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return {"median_ms": statistics.median(times), "least_ms": min(times), "calls": len(times)}


def unit_rows(count: int, dim: int, seed: int = 0) -> Any:
    import torch

    generator = torch.Generator(device()).manual_seed(seed)
    w = torch.randn(count, dim, generator=generator, device=device())
    return torch.nn.functional.normalize(w, dim=1)


def passes(count: int, dim: int, precision: str, **options: Any) -> Callable[[], Any]:
    """One pass over all pairs, as a function without arguments."""
    import torch

    gaussian_potential = importlib.import_module("fastproto_kernels.gaussian_potential").gaussian_potential

    w, index = unit_rows(count, dim), torch.arange(count, device=device())
    return lambda: gaussian_potential(w, w, t=2.0, self_index=index, precision=precision, **options)


# --- the steps: each yields (name, value) pairs, which are kept even when a later pair fails ------------------------


def machine(dry: bool) -> Iterator[Entry]:
    import torch
    import triton

    yield "python", platform.python_version()
    yield "torch", torch.__version__
    yield "triton", triton.__version__
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    yield "commit", os.environ.get("FASTPROTO_COMMIT") or commit.stdout.strip() or "unknown"
    if not dry:
        properties = torch.cuda.get_device_properties(0)
        yield "gpu", properties.name
        yield "capability", f"{properties.major}.{properties.minor}"
        yield "multiprocessors", properties.multi_processor_count
        yield "memory_gib", round(properties.total_memory / 2**30, 1)
        yield "cuda", torch.version.cuda


def exercise(dry: bool) -> Iterator[Entry]:
    """Every kernel once or twice at shapes that fill no tile, for the sanitizer to watch."""
    import torch

    from fastproto_kernels.best_listed import best_listed
    from fastproto_kernels.centre_factors import centre_factors
    from fastproto_kernels.gaussian_potential import gaussian_potential
    from fastproto_kernels.head_step import head_step_
    from fastproto_kernels.ipm_loss import ipm_loss
    from fastproto_kernels.log_sum_exp import sinkhorn_sweep
    from fastproto_kernels.sphere_step import sphere_step_
    from fastproto_kernels.top_scores import top_scores
    from fastproto_kernels.update_class_means import update_class_means_

    m, c = 37, 301
    for dim in (10,) if dry else (10, 300, 600):
        points, others = unit_rows(m, dim), unit_rows(c, dim, 1)
        own, prices = torch.arange(m, device=device()), torch.rand(c, device=device())
        for precision in ("medium",) if dry else ("highest", "higher", "high", "medium", "tf32x3"):
            gaussian_potential(points, others, t=2.0, self_index=own, precision=precision, parts=2)
            gaussian_potential(points, others, t=2.0, weights=prices, precision=precision)
        sphere_step_(points.clone(), points.clone(), points, prices[:1], factor=1.0, rate=0.1, momentum=0.9)
        _, listed = top_scores(points, others, 5, prices=prices, floor=points.new_zeros(m), parts=2)
        norms = torch.ones(m, dtype=torch.float64, device=device())
        centre_factors(points, norms, others)
        best_listed(points, others, norms, prices.double(), listed)
        sinkhorn_sweep(points, others, prices, epsilon=0.1)
        labels, assignment = torch.randint(-2, c + 2, (m,), device=device()), torch.randperm(c, device=device())
        ipm_loss(points, labels, others, assignment)
        update_class_means_(others.clone(), points, labels, 0.9)
        head_step_(others.clone(), points, labels, others, assignment, momentum=0.9)
        float(points.sum())  # waits: an error shows beside its shape
        yield f"D={dim}", "ran"


def sanitizer(dry: bool) -> Iterator[Entry]:
    """compute-sanitizer on ``exercise``: accesses out of bounds, and races in shared memory."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if dry or not Path(program).exists():
        yield "result", "not measured: " + ("a dry run" if dry else "compute-sanitizer is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # each tensor's end is its memory's
        child = [sys.executable, str(Path(__file__).resolve()), "--step", "exercise"]
        running = {}
        for tool in ("memcheck", "racecheck"):
            more = ["--racecheck-report", "all"] if tool == "racecheck" else []
            command = [program, "--tool", tool, "--print-limit", "20", *more, *child, str(Path(folder) / tool)]
            options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            running[tool] = subprocess.Popen(command, env=environment, **options)
        for tool, process in running.items():
            text, _ = process.communicate()
            print(text, flush=True)
            lines = [line.strip("= ") for line in text.splitlines() if line.startswith("=====")]
            said = [line for line in lines if "SUMMARY" in line][-1:]
            words = ("Race", "hazard", "access", "Invalid", "Value")
            problems = [line for line in lines if any(word in line for word in words)][:40]
            yield tool, {"summary": said, "shapes": text.count('"ran"'), "problems": problems}


def tests(dry: bool) -> Iterator[Entry]:
    files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests").glob("test_kernel_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    command += ["--collect-only"] if dry else []
    if importlib.util.find_spec("xdist") and not dry:
        command += ["-n", "12"]  # most of the time is compilation
    done = subprocess.run([*command, *files, "tests/test_backend.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    lines = done.stdout.strip().splitlines()
    yield "exit", done.returncode
    yield "summary", lines[-1] if lines else "pytest printed nothing (is it installed?)"
    yield "failed", [line for line in lines if line.startswith(("FAILED", "ERROR"))][:40]


def accuracy(dry: bool) -> Iterator[Entry]:
    """Error of the tangent gradient relative to its norm, and of the potential relative to itself, against float64."""
    import torch

    PRECISIONS = importlib.import_module("fastproto_kernels.lib.tile_sizes").PRECISIONS

    from fastproto import reference

    for dim, precision in itertools.product((16,) if dry else (64, 128, 256, 512, 1024), PRECISIONS):
        count = 40 if dry else 8000
        w = unit_rows(count, dim)
        potential, pull = passes(count, dim, precision)()
        true_potential, true_pull = reference.gaussian_potential(
            w.double(), w.double(), 2.0, torch.arange(count, device=device())
        )
        error, wide = pull.double() - true_pull, w.double()
        error, truth = (x - (x * wide).sum(1, keepdim=True) * wide for x in (error, true_pull))
        yield (
            f"{precision} D={dim}",
            {
                "gradient": float(error.norm() / truth.norm()),
                "potential": float(((potential.double() - true_potential) / true_potential).abs().max()),
            },
        )


def determinism(dry: bool) -> Iterator[Entry]:
    import torch

    PRECISIONS = importlib.import_module("fastproto_kernels.lib.tile_sizes").PRECISIONS

    from fastproto import reference
    from fastproto.functional import gaussian_potential

    for dim, precision in itertools.product((16,) if dry else (64, 512), PRECISIONS):
        call = passes(40 if dry else 8000, dim, precision, parts=3)
        first = call()
        same = all(torch.equal(a, b) for _ in range(4) for a, b in zip(first, call(), strict=True))
        yield f"{precision} D={dim}", "same bits" if same else "DIFFERENT BITS"
    count = 40 if dry else 6000
    w, own = unit_rows(count, 96), torch.arange(count, device=device())
    for name, weights in (("all pairs", None), ("all pairs, weighted", torch.rand(count, device=device()))):
        first = gaussian_potential(w, weights=weights)  # of so many by cuBLAS
        same = all(
            torch.equal(a, b) for _ in range(4) for a, b in zip(first, gaussian_potential(w, weights=weights), strict=True)
        )
        heavy = None if weights is None else weights.double()
        true = reference.gaussian_potential(w.double(), w.double(), 2.0, own, heavy)[1]
        error = float((first[1] - true).norm() / true.norm())
        yield f"highest, {name}", {"bits": "same bits" if same else "DIFFERENT BITS", "error": error}


def functions(dry: bool) -> Iterator[Entry]:
    """The public functions on the kernels: the choice, error of loss and gradient, a step without a wait, compiled."""
    import torch

    from fastproto import reference
    from fastproto.backend import resolve, use_backend
    from fastproto.functional import gaussian_potential, uniformity_loss
    from fastproto.prototypes.optimise import Effort
    from fastproto.prototypes.sgd import sgd

    def step(w: torch.Tensor, t: float, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        w = w.detach().requires_grad_()
        value = uniformity_loss(w, t=t, subset=rows)
        return value.detach(), torch.autograd.grad(value, w)[0]

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
        took = milliseconds(lambda: sgd(w, 2.0, Effort(), subset_size=len(w), iterations=steps), dry)
        yield f"{steps} steps of sgd on all rows", took
        if not dry:
            torch.cuda.set_sync_debug_mode("error")
            step(w, 2.0, few)
            step(w, 2.0, None)
            torch.cuda.set_sync_debug_mode("default")
            yield "waits for the device", "never"
            compiled = torch.compile(lambda w: uniformity_loss(w), fullgraph=True)
            yield "compiled", "same bits" if torch.equal(compiled(w), uniformity_loss(w)) else "DIFFERENT BITS"


def speed(dry: bool) -> Iterator[Entry]:
    """Time of a pass at C = 32768, and its rate (4 C² D counted) over the measured one of a bfloat16 product."""
    import torch

    size = 64 if dry else 8192
    a, b = (torch.randn(size, size, device=device()).to(torch.bfloat16) for _ in range(2))
    ceiling = milliseconds(lambda: a @ b, dry)
    rate = 2 * size**3 / ceiling["median_ms"] * 1e3
    yield "bf16_gemm_tflops", rate / 1e12
    count = 40 if dry else 32768
    for precision, dim in itertools.product(("medium", "high", "higher"), (16,) if dry else (64, 128, 256, 512)):
        took = milliseconds(passes(count, dim, precision), dry)
        yield f"{precision} D={dim}", took | {"share_of_gemm": 4 * count**2 * dim / took["median_ms"] * 1e3 / rate}
    count = 40 if dry else 10000
    for precision, dim in itertools.product(("highest", "tf32", "tf32x3"), (16,) if dry else (128, 512)):
        yield f"kernel {precision} C={count} D={dim}", milliseconds(passes(count, dim, precision), dry)
    from fastproto.functional import gaussian_potential

    for precision, dim in itertools.product(("highest", "high", "medium"), (16,) if dry else (128, 512)):
        w = unit_rows(count, dim)
        took = milliseconds(lambda w=w, p=precision: gaussian_potential(w, precision=p), dry)
        yield f"gaussian_potential {precision} C={count} D={dim}", took


def peers(dry: bool) -> Iterator[Entry]:
    """The straightforward torch pass with its C×C matrix, eager and compiled, beside the kernel at the same shape."""
    import torch

    from fastproto.functional import gaussian_potential

    count, dim = (40, 16) if dry else (16384, 256)

    def naive(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.exp(4.0 * (w @ w.T - 1)).fill_diagonal_(0.0)
        return g.sum(1, dtype=torch.float32), g @ w

    w = unit_rows(count, dim)
    for precision in ("medium", "high", "higher", "highest"):
        yield f"kernel {precision}", milliseconds(passes(count, dim, precision), dry)
    yield "gaussian_potential highest", milliseconds(lambda: gaussian_potential(w), dry)
    for dtype in (torch.float32, torch.bfloat16):
        points, name = w.to(dtype), str(dtype).removeprefix("torch.")
        yield f"naive {name}", milliseconds(lambda points=points: naive(points), dry)
    if not dry:
        for dtype in (torch.float32, torch.bfloat16):
            points, name, compiled = w.to(dtype), str(dtype).removeprefix("torch."), torch.compile(naive)
            took = milliseconds(lambda f=compiled, points=points: f(points), dry)
            yield f"torch.compile {name}", took


def graphed(call: Callable[[], object], dry: bool) -> Callable[[], object]:
    """The call as a CUDA graph: what is timed is the GPU, not Python's launches."""
    import torch

    if dry:
        return call
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def head(dry: bool) -> Iterator[Entry]:
    """Loss, gradient and class means: bytes that must move (of W and Q the rows present) over the copy bandwidth."""
    import torch

    from fastproto import reference

    kernels = {name: importlib.import_module(f"fastproto_kernels.{name}") for name in ("ipm_loss", "head_step")}
    kernels |= {name: importlib.import_module(f"fastproto_kernels.{name}") for name in ("batch_order", "update_class_means")}
    source = torch.ones(1000 if dry else 1 << 28, device=device())
    target = torch.empty_like(source)
    copied = milliseconds(lambda: target.copy_(source), dry)
    bandwidth = 8 * source.numel() / copied["median_ms"]  # bytes in a millisecond
    yield "copy_tb_per_s", bandwidth / 1e9
    b, dim = (20, 16) if dry else (8192, 512)
    for name, classes, dtype in (
        ("many classes bf16", 100_000, torch.bfloat16),
        ("many classes fp32", 100_000, torch.float32),
        ("100 classes bf16", 100, torch.bfloat16),
        ("half of one class bf16", 1000, torch.bfloat16),
    ):
        classes, dtype = (30, torch.float32) if dry else (classes, dtype)
        x, w, means = unit_rows(b, dim).to(dtype), unit_rows(classes, dim, 1), torch.zeros(classes, dim, device=device())
        labels, assignment = torch.randint(0, classes, (b,), device=device()), torch.randperm(classes, device=device())
        if name.startswith("half"):
            labels[::2] = 0
        present, size = len(labels.unique()) * dim * 4, b * dim * x.element_size()
        calls: dict[str, tuple[Callable[[], object], int]] = {
            "loss": (lambda: kernels["ipm_loss"].ipm_loss(x, labels, w, assignment), 2 * size + present),
            "means": (
                lambda: kernels["update_class_means"].update_class_means_(means, x, labels, 0.9),
                size + 2 * present,
            ),
            "both": (
                lambda: kernels["head_step"].head_step_(means, x, labels, w, assignment, momentum=0.9),
                2 * size + 3 * present,
            ),
            "sort": (lambda: kernels["batch_order"].batch_order(labels, classes), 16 * b),
        }
        for part, (call, moved) in calls.items():
            took = milliseconds(graphed(call, dry), dry)
            yield f"{name}: {part}", took | {"share_of_copy": moved / took["median_ms"] / bandwidth}
        if name != "many classes bf16":
            continue
        leaf = x.detach().requires_grad_()

        def plain(leaf: torch.Tensor = leaf) -> torch.Tensor:
            return reference.ipm_loss(leaf, labels, w, assignment).mean()

        forms = {"eager": plain} if dry else {"eager": plain, "torch.compile": torch.compile(plain)}
        for form, loss in forms.items():
            took = milliseconds(lambda loss=loss: torch.autograd.grad(loss(), leaf), dry)
            yield f"{name}: loss and gradient in torch, {form}", took


def training(dry: bool) -> Iterator[Entry]:
    """A whole training step of the public head on the kernels: exact, without a wait, captured, compiled, its time."""
    import torch

    from fastproto import PrototypeHead, reference
    from fastproto.backend import resolve, use_backend

    b, classes, dim = (20, 30, 16) if dry else (8192, 10_000, 512)
    half = torch.float32 if dry else torch.bfloat16
    w = unit_rows(classes, dim, 1)
    for op in ("head_step_", "ipm_loss", "update_class_means_", "nearest_prototypes"):
        yield f"choice of {op}", str(resolve(op, w))
    x, labels = 3 * unit_rows(b, dim), torch.randint(0, classes, (b,), device=device())
    with use_backend("triton"):
        head = PrototypeHead(classes, dim, prototypes=w.cpu()).to(device())
        leaf = x.clone().requires_grad_()
        head(leaf, labels).backward()
        exact = x.double().requires_grad_()
        reference.ipm_loss(exact, labels, w.double(), head.assignment).mean().backward()
        assert leaf.grad is not None and exact.grad is not None
        yield "gradient's error", float((leaf.grad - exact.grad).norm() / exact.grad.norm())
        model = torch.nn.Linear(dim, dim, device=device())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast(device().type, half, enabled=not dry):
                loss: torch.Tensor = head(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        features = x.to(half).requires_grad_()
        forms: dict[str, Callable[[], object]] = {
            "head forward and backward": lambda: torch.autograd.grad(head(features, labels), features),
            "step with one linear layer": step,
            "top 5 labels": lambda: head.predict(features, 5),
        }
        for name, call in forms.items():
            yield name, milliseconds(call, dry)
        if dry:
            labels[0] = classes
            head(x, labels)
            yield "a bad label is said later", _said(head.check_batches)
            return
        torch.cuda.set_sync_debug_mode("error")
        step()
        head.predict(features, 5)
        torch.cuda.set_sync_debug_mode("default")
        yield "waits for the device", "never"
        graph, before = torch.cuda.CUDAGraph(), int(head.updates)
        with torch.cuda.graph(graph):
            step()
        graph.replay()
        yield "steps of a captured graph's replay", int(head.updates) - before
        yield "captured step with one linear layer", milliseconds(graph.replay, dry)
        compiled = torch.compile(lambda x: head(x, labels, update_means=False), fullgraph=True)
        yield "compiled", float((compiled(features) - head(features, labels, update_means=False)).abs())
        labels[0] = classes
        step()
        yield "a bad label is said later", _said(head.check_batches)


def _said(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return "NOTHING WAS SAID"


def sweeps(dry: bool) -> Iterator[Entry]:
    """Time of the sweeps over all pairs, and the rate of their products over the measured one of a bfloat16 product."""
    import torch

    modules = {name: importlib.import_module(f"fastproto_kernels.{name}") for name in ("top_scores", "log_sum_exp")}
    tiles = importlib.import_module("fastproto_kernels.lib.tile_sizes")
    size = 64 if dry else 8192
    a, b = (torch.randn(size, size, device=device()).to(torch.bfloat16) for _ in range(2))
    rate = 2 * size**3 / milliseconds(lambda: a @ b, dry)["median_ms"]
    for m, c, dim in ((40, 50, 16),) if dry else ((10_000, 10_000, 128), (10_000, 100_000, 512), (256, 100_000, 512)):
        points, others = unit_rows(m, dim), unit_rows(c, dim, 1)
        prices = 0.01 * torch.rand(c, device=device())
        for precision in ("medium", "higher"):
            calls: dict[str, Callable[[], object]] = {
                "top 16": lambda p=precision: modules["top_scores"].top_scores(
                    points, others, 16, prices=prices, precision=p
                ),
                "top 1": lambda p=precision: modules["top_scores"].top_scores(points, others, 1, precision=p),
                "log_sum_exp": lambda p=precision: modules["log_sum_exp"].log_sum_exp(
                    points, others, scale=20.0, bias=prices, precision=p
                ),
            }
            work = 2 * m * c * dim * tiles.operands_for(precision, 0.0, False)[1]
            for name, call in calls.items():
                took = milliseconds(call, dry, seconds=0.2)
                yield f"{name} {precision} {m}x{c} D={dim}", took | {"share_of_gemm": work / took["median_ms"] / rate}
        if m * c <= 10**8:
            took = milliseconds(lambda p=points, o=others: (p @ o.T).topk(16), dry, seconds=0.2)
            yield f"torch matmul and topk {m}x{c} D={dim}", took


def clustered(count: int, dim: int) -> tuple[Any, Any]:
    """Class means as of an untrained network, a large common part and groups of about twenty, and prototypes."""
    import torch

    groups = torch.randint(0, count // 20 + 2, (count,), generator=torch.Generator().manual_seed(3)).to(device())
    means = unit_rows(1, dim, 4) + unit_rows(count // 20 + 2, dim, 5)[groups] + 0.7 * unit_rows(count, dim, 6)
    return means, unit_rows(count, dim, 7)


def assignment(dry: bool) -> Iterator[Entry]:
    """CUDA tensors: as good as SciPy, on degenerate means too; then times, cold and unchanged, and SciPy's."""
    missing = [name for name in ("numba", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        yield "seconds", f"not measured: the exact solver on the lists needs {' and '.join(missing)}, not installed"
        return

    import torch

    from fastproto import align, assign, reference
    from fastproto.backend import resolve, use_backend

    means, prototypes = clustered(*((30, 4) if dry else (1500, 32)))
    cases = {"clustered": means, "collapsed": means[:1] + 1e-5 * means, "a third unseen": means.clone()}
    cases |= {"half the same": means.clone(), "signs": means.sign(), "in pairs": means[torch.arange(len(means)) // 2]}
    cases["a third unseen"][::3], cases["half the same"][::2] = 0, means[0]
    yield "choice", str(resolve("assign", means))
    for name, q in cases.items():
        with use_backend("triton"):
            found = assign(q, prototypes, method="column_generation")
        scores = reference.scores(q.double(), prototypes.double()).cpu()
        best = float(reference.objective(scores, reference.best_assignment(scores)))
        gap = float(reference.duality_gap(scores, found.permutation.cpu(), found.prices.cpu()))
        close = abs(found.objective - best) <= 1e-6 * (best - float(scores.mean(1).sum())) + 1e-12
        honest = found.certified and abs(gap - found.gap) <= found.rounding_floor
        yield name, {"as good as SciPy": close, "gap": found.gap, "honest": honest, "reason": found.reason}
    with use_backend("triton"):
        turned = align(means, prototypes, starts=2)
    exact = turned.rotation.double() @ turned.rotation.double().T - torch.eye(means.shape[1], device=device())
    yield "align", {"seconds": turned.seconds, "rounds": turned.rounds, "turn_error": float(exact.abs().max())}
    shapes = ((40, 4),) if dry else ((10_000, 128), (10_000, 512), (100_000, 512))
    for count, dim in shapes:
        yield f"C={count} D={dim}", assignment_times(*clustered(count, dim), dry)
    if not dry:
        yield "where an unchanged one spends it, C=10000 D=512", profiled(*clustered(10_000, 512))


def scipy(dry: bool) -> Iterator[Entry]:
    """SciPy's dense solver on the means of the step ``assignment``, one process for each shape, at the same time."""
    if importlib.util.find_spec("scipy") is None:
        yield "seconds", "not measured: SciPy is not installed"
        return
    shapes = ((40, 4),) if dry else ((10_000, 128), (10_000, 512))
    instances = [clustered(count, dim) for count, dim in shapes]
    with ThreadPoolExecutor() as pool:
        for (count, dim), seconds in zip(shapes, pool.map(lambda x: scipy_seconds(*x), instances), strict=True):
            yield f"C={count} D={dim}", seconds


def assignment_times(means: Any, prototypes: Any, dry: bool) -> dict[str, Any]:
    import torch

    from fastproto import assign
    from fastproto.backend import use_backend

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
                seconds[name].append(time.perf_counter() - begin)  # the result has been read: nothing is under way
    memory = "not measured" if dry else (torch.cuda.max_memory_allocated() - before) / 2**20
    times = {f"{name}_s": statistics.median(taken) for name, taken in seconds.items()}
    facts = {"certified": first.certified, "relative_gap": first.relative_gap, "changed": found.changed}
    return times | facts | {"passes": first.passes, "reason": first.reason, "extra_mib": memory}


def profiled(means: Any, prototypes: Any) -> dict[str, Any]:
    """An unchanged assignment on the device: its waits and launches, and the longest of these."""
    import torch

    from fastproto import assign

    def unchanged() -> None:
        assign(means, prototypes, previous=first, method="column_generation")

    first = assign(means, prototypes, method="column_generation")
    unchanged()
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        unchanged()
        torch.cuda.set_sync_debug_mode("default")
    with torch.profiler.profile() as profile:
        unchanged()
    on_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    spent = sorted(((event.time_range.elapsed_us(), event.name[:60]) for event in on_device), reverse=True)
    total = sum(microseconds for microseconds, _ in spent)
    return {"waits": len(waits), "launches": len(spent), "device_us": total, "longest_us": spent[:8]}


def scipy_seconds(means: Any, prototypes: Any, limit: float = 70.0) -> float | str:
    """In a process that can be stopped, of a matrix that is there: its product and its way here are not counted."""
    import numpy

    code = (
        "import sys, time, numpy\nfrom scipy.optimize import linear_sum_assignment as solve\n"
        "scores = numpy.load(sys.argv[1])\nbegin = time.perf_counter()\nsolve(scores, maximize=True)\n"
        "print(time.perf_counter() - begin)"
    )
    with tempfile.TemporaryDirectory() as folder:
        numpy.save(Path(folder) / "scores.npy", (means @ prototypes.T).cpu().numpy())
        command = [sys.executable, "-c", code, str(Path(folder) / "scores.npy")]
        try:
            return float(subprocess.run(command, check=True, capture_output=True, timeout=limit).stdout)
        except subprocess.TimeoutExpired:
            return f"not done in {limit:.0f} s"


def million(dry: bool) -> Iterator[Entry]:
    import torch

    count = 50 if dry else 1_000_000
    call = passes(count, 64, "medium")
    if not dry:
        torch.cuda.reset_peak_memory_stats()
    yield f"one pass C={count} D=64", milliseconds(call, dry, seconds=0.1)
    yield "finite", bool(call()[1].isfinite().all())
    if not dry:
        yield "peak_gib", torch.cuda.max_memory_allocated() / 2**30


def prototypes(dry: bool) -> Iterator[Entry]:
    if importlib.util.find_spec("scipy") is None:
        yield "seconds", "not measured: a search needs SciPy, which is not installed"
        return

    from fastproto.prototypes import estimate_prototypes

    count, dim = (20, 8) if dry else (10_000, 512)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        options = {"device": device(), "cache": False, "time_limit": 20.0, "max_passes": 30 if dry else None}
        for attempt in ("first", "second"):  # the first one compiles
            begin = time.perf_counter()
            found = estimate_prototypes(count, dim, seed=0, **options)
            yield f"{attempt}_seconds", time.perf_counter() - begin
            yield "uniformity", float(found.quality.uniformity)
            yield "method", f"{found.method}, {found.passes} passes"


def tune(dry: bool) -> Iterator[Entry]:
    """Block sizes for "medium" and "high", best first; stops when the process is stopped."""
    Tile = importlib.import_module("fastproto_kernels.lib.tile_sizes").Tile

    count = 40 if dry else 16384
    sizes = [(m, n, w, s) for m in (64, 128) for n in (32, 64, 128) for w in (4, 8) for s in (2, 3, 4)]
    for precision, dim in itertools.product(("medium", "high"), (16,) if dry else (512, 256, 128, 64)):
        found: list[tuple[float, list[int]]] = []
        for m, n, warps, stages in sizes[:2] if dry else sizes:
            if dim * (m + n * stages) * 2 > 227 * 1024 or m * dim > 4096 * warps:  # cannot fit or would spill
                continue
            with contextlib.suppress(Exception):  # too much shared memory: not a candidate
                call = passes(count, dim, precision, tile=Tile(m, n, warps, stages))
                found.append((milliseconds(call, dry, seconds=0.05)["median_ms"], [m, n, warps, stages]))
                yield f"{precision} D={dim}", [{"ms": ms, "m_n_warps_stages": tile} for ms, tile in sorted(found)[:5]]


STEPS: dict[str, tuple[Callable[[bool], Iterator[Entry]], float]] = {  # and its limit in seconds
    "machine": (machine, 60),
    "tests": (tests, 240),
    "sanitizer": (sanitizer, 200),
    "accuracy": (accuracy, 150),
    "determinism": (determinism, 60),
    "scipy": (scipy, 100),
    "functions": (functions, 90),
    "speed": (speed, 100),
    "peers": (peers, 90),
    "head": (head, 60),
    "training": (training, 60),
    "sweeps": (sweeps, 70),
    "assignment": (assignment, 100),
    "million": (million, 40),
    "prototypes": (prototypes, 70),
    "tune": (tune, 400),
}
SIDE_BY_SIDE = ("machine", "tests", "sanitizer", "accuracy", "determinism", "scipy")


def run_step(name: str, out: Path, dry: bool) -> None:
    """In the child: the pairs so far are on disk after each."""
    found: dict[str, Any] = {}
    for key, value in (exercise if name == "exercise" else STEPS[name][0])(dry):
        found[key] = value
        print(f"{name}: {key}: {json.dumps(value)}", flush=True)
        fresh = out / f"{name}.json.new"
        fresh.write_text(json.dumps(found, indent=1))
        fresh.replace(out / f"{name}.json")  # whole, also when the process is stopped here


def run_child(name: str, out: Path, dry: bool, environment: dict[str, str], limit: float) -> dict[str, Any]:
    begin = time.monotonic()
    (out / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), str(out), "--step", name, *(["--dry-run"] if dry else [])]
    with (out / f"{name}.log").open("w") as log:
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            code = child.wait(timeout=limit)
            status = "done" if code == 0 else f"failed (exit {code}, see {name}.log)"
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit:.0f} s"
            os.killpg(child.pid, signal.SIGKILL)  # the child's own children too: pytest, the compilers
            child.wait()
    kept = out / f"{name}.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    kept.unlink(missing_ok=True)
    return {"status": status, "seconds": round(time.monotonic() - begin, 1), "results": results}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for results.json and the logs")
    parser.add_argument("--tune", action="store_true", help="search block sizes as well")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes under the interpreter, no GPU")
    parser.add_argument("--steps", nargs="+", choices=sorted(STEPS), help="only these")
    parser.add_argument("--step", choices=[*STEPS, "exercise"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    out = chosen.out.resolve()
    if chosen.step:
        run_step(chosen.step, out, chosen.dry_run)
        return 0
    import torch

    if not chosen.dry_run and not torch.cuda.is_available():
        print(
            "gpu_check needs a CUDA GPU and this machine has none: run it on one, or pass --dry-run.", file=sys.stderr
        )
        return 2
    names = chosen.steps or [name for name in STEPS if name != "tune" or chosen.tune]
    deadline = time.monotonic() + BUDGET
    report: dict[str, Any] = {"dry_run": chosen.dry_run, "steps": dict.fromkeys(names)}
    with tempfile.TemporaryDirectory() as links:
        (Path(links) / "fastproto_kernels").symlink_to(ROOT / "kernels")
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), links])
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if chosen.dry_run else {}

        def run(name: str) -> None:
            limit = min(STEPS[name][1], deadline - time.monotonic())
            if limit < 5:
                report["steps"][name] = {"status": "not measured: no time left", "results": {}}
            else:
                report["steps"][name] = run_child(name, out, chosen.dry_run, environment, limit)
            with writing:
                (out / "results.json").write_text(json.dumps(report, indent=1))

        writing = Lock()
        with ThreadPoolExecutor() as pool:
            list(pool.map(run, [name for name in names if name in SIDE_BY_SIDE]))
        for name in names:
            if name not in SIDE_BY_SIDE:
                run(name)
    for name, step in report["steps"].items():
        print(f"== {name}: {step['status']}, {step.get('seconds', 0)} s")
        for key, value in step["results"].items():
            print(f"   {key}: {json.dumps(value)[:300]}")
    return int(any(step["status"] != "done" for step in report["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
