"""The three sets: SIGKILL followed by --resume, signals, and the loss of one of two ranks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from lib.kills.leftovers import messages
from lib.kills.runs import (
    BEGIN,
    EPOCHS,
    Mark,
    Undisturbed,
    finish,
    forked,
    next_arguments,
    session,
    started,
    wait_for_mark,
    wait_until,
    wait_until_begun,
)
from lib.kills.tally import Tally

WITHIN = 20.0  # seconds after a signal in which all processes must end
MARKS = (
    Mark("checkpoints/.*.part.ckpt"),
    Mark("checkpoints/best.ckpt"),
    Mark("checkpoints/last.ckpt"),
    Mark("class_means/*.npz", 2),
    Mark("class_means/.*.part.npz"),
    Mark("class_means/*.npz", 2 * EPOCHS - 1),
    Mark(".metrics.*.part.csv"),
    Mark(".*.part.png"),
    Mark("curves.png"),
    Mark("cosines.png"),
    Mark("versions.json"),
)


def kill_one(number: int, seed: int, whole: Undisturbed, tally: Tally) -> None:
    """SIGKILL at a random time or when a file appears, sometimes twice; the resumed run must end like the whole one."""
    chance = random.Random(f"{seed} kill {number}")
    with tempfile.TemporaryDirectory() as name:
        folder, kinds = Path(name), []
        for turn in range(2 if chance.random() < 0.3 else 1):
            mark = MARKS[number // 2 % len(MARKS)] if number % 2 and not turn else None
            process = forked(folder, next_arguments(folder))
            if mark is None:
                process.join(chance.uniform(0, whole.seconds))
            else:
                wait_for_mark(folder, mark, lambda process=process: process.exitcode is not None)  # type: ignore[misc]
                time.sleep(chance.choice((0, 0, 0.002, 0.02)))
            process.kill()
            process.join()
            kinds.append("time" if mark is None else mark.pattern)
            if process.exitcode == 0:  # too late: draw again
                return kill_one(number, seed + 1, whole, tally)
        faults = [f"a traceback: {messages(folder)[-500:]}"] if "Traceback" in messages(folder) else []
        tally.add(" then ".join(kinds), faults + finish(folder, whole.folder))


def signal_one(number: int, seed: int, whole: Undisturbed, tally: Tally) -> None:
    """SIGTERM or SIGINT, once or twice: checks exit code and message, then resumes the run."""
    chance = random.Random(f"{seed} signal {number}")
    which, twice = (signal.SIGTERM, signal.SIGINT)[number % 2], number // 2 % 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = started(folder, BEGIN)
        wait_until_begun(process)
        wait_until(time.monotonic() + chance.uniform(0, whole.seconds_with_imports), process)
        began = time.monotonic()
        late = process.poll() is not None
        process.send_signal(which)
        if twice:
            wait_until(time.monotonic() + chance.uniform(0, 0.1), process)
            process.send_signal(which)
        faults = []
        try:
            process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            faults.append(f"still running after {WITHIN:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        took = time.monotonic() - began
        resumable = any((folder / "run" / "checkpoints").glob("*.ckpt"))
        faults += signal_faults(which, process.returncode, messages(folder), resumable, late)
        kind = f"{which.name}{' twice' if twice else ''}{' (too late)' if process.returncode == 0 else ''}"
        tally.add(kind, faults + finish(folder, whole.folder), took)


def signal_faults(which: signal.Signals, code: int, text: str, resumable: bool, late: bool) -> list[str]:
    """The faults in how a run ended after a signal."""
    if code != 128 + which:
        return [] if late or code == 0 else [f"exit code {code}: {text[-300:]}"]
    faults = []
    if text.count("\n") != 0:
        faults.append(f"more than a sentence: {text[-500:]}")
    if not text.startswith(("interrupted", "terminated")):
        faults.append(f"said {text[-300:]!r}")
    if ("--resume" in text) != resumable:
        faults.append(f"said {text!r} where a checkpoint is {'there' if resumable else 'missing'}")
    return faults


def rank_one(number: int, seed: int, whole: Undisturbed, tally: Tally) -> None:
    """SIGTERM or SIGKILL to one of two ranks: all processes must end soon, with a message of one sentence."""
    chance = random.Random(f"{seed} ranks {number}")
    which, rank = (signal.SIGTERM, signal.SIGKILL)[number % 2], number // 2 % 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = started(folder, [*BEGIN, "--devices", "2", "--data.batch_size", "8", "--optim.epochs", "20"])
        while process.poll() is None and len(session(process.pid)) < 2:
            time.sleep(0.02)
        # 30 % while the second rank imports and the process group is set up, the others during training
        if chance.random() >= 0.3:
            wait_for_mark(folder, Mark("checkpoints/last.ckpt"), lambda: process.poll() is not None)
        wait_until(time.monotonic() + chance.uniform(0, 0.5 * whole.seconds_with_imports), process)
        pids = session(process.pid)
        if len(pids) < 2:  # too late: draw again
            process.wait()
            return rank_one(number, seed + 1, whole, tally)
        os.kill(process.pid if rank == 0 else next(pid for pid in pids if pid != process.pid), which)
        faults, began = [], time.monotonic()
        while (left := session(process.pid)) and time.monotonic() - began < WITHIN:
            process.poll()
            time.sleep(0.02)
        took = time.monotonic() - began
        if left:
            faults.append(f"{len(left)} processes left after {took:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        faults += rank_faults(which, rank, process.returncode, messages(folder))
        tally.add(f"{which.name} to rank {rank}", faults, took)


def rank_faults(which: signal.Signals, rank: int, code: int, text: str) -> list[str]:
    """The faults in how a run ended after a signal to one rank."""
    expected = -which if which == signal.SIGKILL and rank == 0 else 128 + which
    faults = [] if code in (expected, 0) else [f"exit code {code}: {text[-300:]}"]
    if code != 0 and (len(text.splitlines()) != 1 or "Traceback" in text):
        faults.append(f"not one sentence: {text[-800:]!r}")
    return faults
