"""Runs the steps, each in its own process with a time limit, and writes their results."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from lib.gpu_check.steps import HIDDEN, STEPS, load
from lib.repository import ROOT, Record, need

BUDGET = 520.0  # seconds for all steps
LEAST = 5.0  # seconds: with less time left, a step does not begin


@dataclass
class Outcome:
    """How one step ended."""

    status: str
    results: Record
    seconds: float = 0.0


def run_step(name: str, out: Path, dry: bool) -> None:
    """Runs a step in the child process; writes its results to disk after each of them."""
    found: Record = {}
    for key, value in load(name)(dry):
        found[key] = value
        print(f"{name}: {key}: {json.dumps(value)}", flush=True)
        fresh = out / f"{name}.json.new"
        fresh.write_text(json.dumps(found, indent=1))
        fresh.replace(out / f"{name}.json")  # atomic: the file is complete even if the process is stopped here


def run_child(name: str, out: Path, dry: bool, limit: float) -> Outcome:
    """Runs one step in its own process, which is killed at the time limit with all its children."""
    begin = time.monotonic()
    kept = out / f"{name}.json"
    kept.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check"), str(out), "--step", name]
    with (out / f"{name}.log").open("w") as log:
        child = subprocess.Popen(
            [*command, *(["--dry-run"] if dry else [])],
            env=environment(dry),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout=limit)
            status = "done" if code == 0 else f"failed (exit {code}, see {name}.log)"
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit:.0f} s"
            os.killpg(child.pid, signal.SIGKILL)  # the child's own children too: pytest, the compilers
            child.wait()
    results = json.loads(kept.read_text()) if kept.exists() else {}
    kept.unlink(missing_ok=True)
    return Outcome(status, results, round(time.monotonic() - begin, 1))


def environment(dry: bool) -> dict[str, str]:
    """Environment variables: Triton compiles for the GPU; in a dry run its interpreter replaces the GPU."""
    kept = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return kept | ({"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if dry else {})


def run_all(names: list[str], out: Path, dry: bool) -> dict[str, Outcome]:
    """Runs the steps without timings in parallel, then the others one at a time; updates results.json after each."""
    deadline, writing = time.monotonic() + BUDGET, Lock()
    outcomes: dict[str, Outcome] = {}

    def run(name: str) -> None:
        limit = min(STEPS[name].limit, deadline - time.monotonic())
        enough = limit >= LEAST
        outcome = run_child(name, out, dry, limit) if enough else Outcome("not measured: no time left", {})
        with writing:
            outcomes[name] = outcome
            steps = {each: asdict(outcomes[each]) if each in outcomes else None for each in names}
            (out / "results.json").write_text(json.dumps({"dry_run": dry, "steps": steps}, indent=1))

    with ThreadPoolExecutor() as pool:
        list(pool.map(run, [name for name in names if STEPS[name].side_by_side]))
    for name in names:
        if not STEPS[name].side_by_side:
            run(name)
    return {name: outcomes[name] for name in names}


def main(arguments: list[str], description: str) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for results.json and the logs")
    parser.add_argument("--tune", action="store_true", help="search block sizes as well")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes under the interpreter, no GPU")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="a folder of pure-Python packages to bring along")
    parser.add_argument("--steps", nargs="+", choices=sorted(STEPS), help="only these")
    parser.add_argument("--step", choices=[*STEPS, *HIDDEN], help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    out = chosen.out.resolve()
    if chosen.step:
        run_step(chosen.step, out, chosen.dry_run)
        return 0
    need("torch", "triton")
    if chosen.peers is not None:  # behind the repository and before what is installed, here and in the steps
        os.environ["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], str(chosen.peers.resolve())])
    import torch

    if not chosen.dry_run and not torch.cuda.is_available():
        print(
            "gpu_check needs a CUDA GPU and finds none: run it on a machine with one, or pass --dry-run.",
            file=sys.stderr,
        )
        return 2
    outcomes = run_all(chosen.steps or [n for n in STEPS if n != "tune" or chosen.tune], out, chosen.dry_run)
    for name, outcome in outcomes.items():
        print(f"== {name}: {outcome.status}, {outcome.seconds} s")
        for key, value in outcome.results.items():
            print(f"   {key}: {json.dumps(value)[:300]}")
    return int(any(outcome.status != "done" for outcome in outcomes.values()))
