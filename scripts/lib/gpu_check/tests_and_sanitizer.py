"""Steps without measurements: the tests of the kernels, and the sanitizer on every kernel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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

from lib.gpu_check.measuring import device, unit_rows
from lib.gpu_check.steps import Entries
from lib.repository import ROOT

HELPERS = ("kernel_device", "score_cases")  # tests/score_cases.py imports kernel_device


def tests_of_kernels() -> tuple[str, ...]:
    """Files of tests that run on a GPU if there is one: those that import ``kernel_device``, except the slow ones."""
    imports = re.compile(rf"^from \.\.({'|'.join(HELPERS)}) import ", re.MULTILINE)
    files = sorted(ROOT.glob("tests/*/test_*.py"))
    chosen = [file for file in files if file.parent.name != "slow" and imports.search(file.read_text(encoding="utf-8"))]
    return tuple(file.relative_to(ROOT).as_posix() for file in chosen)


def exercise(dry: bool) -> Entries:
    """Launches every kernel at shapes that do not fill a tile, under the sanitizer."""
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
        update_class_means_(others.clone(), points, labels, 0.9)
        for power in (2.0, 1.0, 0.5, 0.7):
            ipm_loss(points, labels, others, assignment, power=power)
            head_step_(others.clone(), points, labels, others, assignment, momentum=0.9, power=power)
        float(points.sum())  # synchronises, so that an error appears at its shape
        yield f"D={dim}", "ran"


def sanitizer(dry: bool) -> Entries:
    """Runs compute-sanitizer on ``exercise``: out-of-bounds accesses and shared-memory races."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if dry or not Path(program).exists():
        yield "result", "not measured: " + ("a dry run" if dry else "compute-sanitizer is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        # without the caching allocator, accesses to freed tensors are errors
        environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        child = [sys.executable, str(ROOT / "scripts" / "gpu_check"), "--step", "exercise"]
        running = {}
        for tool in ("memcheck", "racecheck"):
            more = ["--racecheck-report", "all"] if tool == "racecheck" else []
            command = [program, "--tool", tool, "--print-limit", "20", *more, *child, str(Path(folder) / tool)]
            running[tool] = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        for tool, process in running.items():
            text, _ = process.communicate()
            print(text, flush=True)
            yield tool, findings(text)


def findings(text: str) -> dict[str, object]:
    """The sanitizer's summary, the number of shapes that ran, and the first problems, from its output."""
    lines = [line.strip("= ") for line in text.splitlines() if line.startswith("=====")]
    words = ("Race", "hazard", "access", "Invalid", "Value")
    return {
        "summary": [line for line in lines if "SUMMARY" in line][-1:],
        "shapes": text.count('"ran"'),
        "problems": [line for line in lines if any(word in line for word in words)][:40],
    }


def tests(dry: bool) -> Entries:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    command += ["--collect-only"] if dry else []
    if importlib.util.find_spec("xdist") and not dry:
        command += ["-n", "12"]  # most of the time is compilation
    done = subprocess.run([*command, *tests_of_kernels()], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    yield from outcome(done.returncode, done.stdout)


def outcome(code: int, text: str) -> Entries:
    """Yields the results in pytest's output, then raises if the tests did not run to the end."""
    lines = text.strip().splitlines()
    yield "exit", code
    yield "summary", lines[-1] if lines else "pytest printed nothing (is it installed?)"
    yield "failed", [line for line in lines if line.startswith(("FAILED", "ERROR"))][:40]
    if code not in (0, 1):  # some may fail, but they must have run
        raise RuntimeError(f"pytest ended with exit code {code} before it had run the tests; see the log of this step")
