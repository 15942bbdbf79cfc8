"""Steps in a process of their own: each keeps its results, and one that fails or takes too long loses no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.gpu_check.steps import load
from lib.repository import ROOT, Record

POLL = 0.05  # seconds


@dataclass
class Outcome:
    """How one step ended."""

    status: str
    results: Record
    seconds: float = 0.0


def run_step(name: str, out: Path, dry: bool) -> None:
    """Runs a step in this process; writes its results to disk after each of them."""
    found: Record = {}
    for key, value in load(name)(dry):
        found[key] = value
        print(f"{name}: {key}: {json.dumps(value)}", flush=True)
        fresh = out / f"{name}.json.new"
        fresh.write_text(json.dumps(found, indent=1))
        fresh.replace(out / f"{name}.json")  # atomic: the file is complete even if the process is stopped here


def run_steps(names: Sequence[str], out: Path, dry: bool) -> None:
    """Runs steps one after the other in this process, with a log each; says in a file which began and how it ended."""
    with (out / f"{names[0]}.events").open("a", buffering=1) as events:
        for name in names:
            with (out / f"{name}.log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            events.write(f"began {name}\n")
            try:
                run_step(name, out, dry)
                events.write(f"done {name}\n")
            except Exception:  # any: the other steps still run
                traceback.print_exc()
                events.write(f"failed {name}\n")
            sys.stdout.flush()
            sys.stderr.flush()


@dataclass
class Progress:
    """What a process has written about its steps: when each began, and how each ended."""

    events: Path
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, Outcome] = field(default_factory=dict)

    def read(self) -> None:
        for line in self.events.read_text().splitlines() if self.events.exists() else []:
            what, _, name = line.partition(" ")
            if what == "began":
                self.began.setdefault(name, time.monotonic())
            elif name not in self.ended:
                self.end(name, "done" if what == "done" else f"failed (see {name}.log)")

    def end(self, name: str, status: str) -> None:
        now = time.monotonic()
        seconds = now - self.began.get(name, now)
        self.ended[name] = Outcome(status.format(seconds), {}, round(seconds, 1))

    @property
    def running(self) -> list[str]:
        return [name for name in self.began if name not in self.ended]


def run_process(
    names: Sequence[str], out: Path, dry: bool, limits: Mapping[str, float], deadline: float
) -> dict[str, Outcome]:
    """Runs steps in one child process, which is killed with all its children when a step exceeds its limit.

    Returns the outcomes of the steps that began; those after a killed one are missing.
    """
    progress = Progress(out / f"{names[0]}.events")
    for left in (progress.events, *(out / f"{name}.json" for name in names)):
        left.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check"), str(out), *(["--dry-run"] if dry else [])]
    child = subprocess.Popen([*command, "--in-turn", *names], env=environment(dry), start_new_session=True)
    while child.poll() is None and time.monotonic() < _end(progress, limits, deadline):
        time.sleep(POLL)  # between two looks at the processes
        progress.read()
    status = f"failed (exit {child.returncode})"
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)  # the child's own children too: pytest, the compilers
        child.wait()
        status = "stopped after {:.0f} s"
    progress.read()
    for name in progress.running or ([] if progress.began else names[:1]):
        progress.end(name, status)
    for name, outcome in progress.ended.items():
        kept = out / f"{name}.json"
        outcome.results = json.loads(kept.read_text()) if kept.exists() else {}
        kept.unlink(missing_ok=True)
    progress.events.unlink(missing_ok=True)
    return progress.ended


def _end(progress: Progress, limits: Mapping[str, float], deadline: float) -> float:
    """When the process is to be stopped."""
    return min([deadline, *(progress.began[name] + limits[name] for name in progress.running)])


def environment(dry: bool) -> dict[str, str]:
    """Environment variables: Triton compiles for the GPU; in a dry run its interpreter replaces the GPU."""
    kept = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return kept | ({"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if dry else {})
