"""Runs the steps in processes with time limits, and writes their results."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from lib.gpu_check.processes import Outcome, run_process, run_step, run_steps
from lib.gpu_check.steps import HIDDEN, STEPS
from lib.repository import need

BUDGET = 175.0  # seconds for all steps
TUNING = 345.0  # more with --tune
LEAST = 5.0  # seconds: with less time left, no step begins


def run_all(names: list[str], out: Path, dry: bool) -> dict[str, Outcome]:
    """Runs the steps without timings in parallel, then the others in one process; updates results.json after each."""
    deadline, writing = time.monotonic() + BUDGET + TUNING * ("tune" in names), Lock()
    limits = {name: step.limit for name, step in STEPS.items()}
    outcomes: dict[str, Outcome] = {}

    def run(wanted: list[str]) -> None:
        found = run_process(wanted, out, dry, limits, deadline)
        with writing:
            outcomes.update(found)
            steps = {each: asdict(outcomes[each]) if each in outcomes else None for each in names}
            (out / "results.json").write_text(json.dumps({"dry_run": dry, "steps": steps}, indent=1))

    with ThreadPoolExecutor() as pool:
        list(pool.map(run, [[name] for name in names if STEPS[name].side_by_side]))
    timed = [name for name in names if not STEPS[name].side_by_side]
    while (left := [name for name in timed if name not in outcomes]) and deadline - time.monotonic() >= LEAST:
        run(left)  # again after a step that had to be killed
    late = Outcome("not measured: no time left", {})
    return {name: outcomes.get(name, late) for name in names}


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
    parser.add_argument("--in-turn", nargs="+", choices=STEPS, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    out = chosen.out.resolve()
    if chosen.step or chosen.in_turn:
        run = run_steps if chosen.in_turn else run_step
        run(chosen.in_turn or chosen.step, out, chosen.dry_run)
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
