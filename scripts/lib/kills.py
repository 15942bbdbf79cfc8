"""Kill training runs at random moments, go on with them, compare with a run that was left alone.

    python scripts/kills.py --runs 50 --seed 0

Three sets, all drawn from the seed:

- SIGKILL: ``--runs`` runs of one process, killed at random times and when files are seen to be written (checkpoints, a
  renewal's class means, the test's row, pictures), some twice; each goes on with ``--resume`` and must end as the
  undisturbed run: weights, optimizer, assignment, class means, metrics beside seconds, config.yaml, pictures; and no
  temporary file stays;
- SIGTERM and SIGINT, once and twice: the exit code, one sentence, no traceback, and the run goes on to the same end;
- two ranks: SIGTERM or SIGKILL to one of them: all processes are gone within 20 s, with one sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

EPOCHS = 4
BEGIN = [
    *("--out", "run", "--progress", "false", "--accelerator", "cpu", "--model", "mlp"),
    *("--optim.epochs", str(EPOCHS), "--head.dim", "3", "--head.renewals_per_epoch", "2"),
    *("--head.initial_assignment", "aligned", "--head.save_class_means", "true"),
]
RESUME = ["--resume", "run", "--progress", "false"]
COMMAND = "import sys; from fastproto.cli import train; sys.exit(train())"
WITHIN = 20.0  # seconds in which all ranks must have ended
PATIENCE = 180.0  # seconds for any run to end
# what is waited for before a kill: a pattern in the run folder, and how many files of it at least
MARKS = (
    ("checkpoints/.*.part.ckpt", 1),
    ("checkpoints/best.ckpt", 1),
    ("checkpoints/last.ckpt", 1),
    ("class_means/*.npz", 2),
    ("class_means/.*.part.npz", 1),
    ("class_means/*.npz", 2 * EPOCHS - 1),
    (".metrics.*.part.csv", 1),
    (".*.part.png", 1),
    ("curves.png", 1),
    ("cosines.png", 1),
    ("versions.json", 1),
)


@dataclass
class Tally:
    """Figures of one set; safe to fill from several threads."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, faults: list[str], seconds: float = 0.0) -> None:
        with self.lock:
            self.counts[kind] += 1
            self.slowest = max(self.slowest, seconds)
            self.failures += [f"{kind}: {fault}" for fault in faults]
            for fault in faults:
                print(f"FAILED {self.name}, {kind}: {fault}", flush=True)

    def report(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        slowest = f"; the slowest end took {self.slowest:.1f} s" if self.slowest else ""
        return f"{self.name}: {sum(self.counts.values())} ({kinds}), {len(self.failures)} failed{slowest}"


# --- runs ------------------------------------------------------------------------------------------------------------


def _forked(folder: str, arguments: list[str]) -> None:
    """A run in a process that has its imports already; to kill it is as real as for any other."""
    os.chdir(folder)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), number)
    os.setsid()
    sys.argv = ["fastproto-train", *arguments]
    from fastproto.cli import train

    code = train()
    sys.stdout.flush()
    os._exit(code)


FORKS = multiprocessing.get_context("forkserver")


def forked(folder: Path, arguments: list[str]) -> Any:
    process = FORKS.Process(target=_forked, args=(str(folder), arguments))
    process.start()
    return process


def started(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """A run as a command of its own, in a session of its own."""
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as error:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], cwd=folder, stdout=out, stderr=error, start_new_session=True
        )


def how_to_continue(folder: Path) -> list[str]:
    """What a user would type: --resume, or the same command where nothing was written yet."""
    return RESUME if (folder / "run" / "config.yaml").is_file() else BEGIN


def wait_for_mark(folder: Path, mark: tuple[str, int], ended: Callable[[], bool]) -> None:
    pattern, count = mark
    while not ended():
        if len(list((folder / "run").glob(pattern))) >= count:
            return
        time.sleep(0.0005)


# --- what a run leaves -----------------------------------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """Whether two nested contents are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v and "seconds" not in k} for row in csv.DictReader(file)]


def differences(run: Path, whole: Path) -> list[str]:
    """What a run has left otherwise than the undisturbed one."""
    found = []
    names = sorted(str(file.relative_to(run)) for file in run.rglob("*"))
    if names != sorted(str(file.relative_to(whole)) for file in whole.rglob("*")):
        found.append(f"files are {names}")
    for name in ("last", "best"):
        contents = [
            torch.load(part / "checkpoints" / f"{name}.ckpt", weights_only=True, map_location="cpu")
            for part in (run, whole)
        ]
        for key in contents[1]:
            if not same(contents[0].get(key), contents[1][key]):
                found.append(f"{name}.ckpt differs in {key}")
    if rows(run) != rows(whole):
        found.append("metrics.csv differs")
    if (run / "config.yaml").read_bytes() != (whole / "config.yaml").read_bytes():
        found.append("config.yaml differs")
    for file in sorted((whole / "class_means").glob("*.npz")):
        with np.load(run / "class_means" / file.name) as a, np.load(file) as b:
            if any(not np.array_equal(a[key], b[key]) for key in b.files):
                found.append(f"{file.name} differs")
    for file in sorted(whole.glob("*.png")):
        if file.name != "curves.png" and (run / file.name).read_bytes() != file.read_bytes():
            found.append(f"{file.name} differs")
    return found


def finish(folder: Path, whole: Path) -> list[str]:
    """Go on with a run, and say how its end differs from the undisturbed run's."""
    arguments = how_to_continue(folder)
    process = forked(folder, arguments)
    process.join(PATIENCE)
    if process.exitcode != 0:
        return [f"{arguments[:2]} ended with {process.exitcode}: {said(folder)[-300:]}"]
    return differences(folder / "run", whole)


def said(folder: Path) -> str:
    lines = (folder / "stderr").read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.startswith("note: "))


def undisturbed(folder: Path) -> tuple[Path, float, float]:
    """The folder to compare with; seconds of a run without and with its imports."""
    seconds = []
    for name in ("first", "second", "third"):  # the first compiles
        (folder / name).mkdir()
        start = time.monotonic()
        process = started(folder / name, BEGIN) if name == "third" else forked(folder / name, BEGIN)
        (process.wait if isinstance(process, subprocess.Popen) else process.join)(PATIENCE)
        seconds.append(time.monotonic() - start)
        assert (folder / name / "run" / "curves.png").exists(), said(folder / name)
        found = differences(folder / name / "run", folder / "first" / "run")
        assert not found, f"undisturbed runs differ: {found}"
    return folder / "first" / "run", seconds[1], seconds[2]


# --- the three sets --------------------------------------------------------------------------------------------------


def kill_one(number: int, seed: int, seconds: float, whole: Path, tally: Tally) -> None:
    chance = random.Random(f"{seed} kill {number}")
    with tempfile.TemporaryDirectory() as name:
        folder, kinds, faults = Path(name), [], []
        for turn in range(2 if chance.random() < 0.3 else 1):
            mark = MARKS[number // 2 % len(MARKS)] if number % 2 and not turn else None
            process = forked(folder, how_to_continue(folder))
            if mark is None:
                process.join(chance.uniform(0, seconds))
            else:
                wait_for_mark(folder, mark, lambda process=process: process.exitcode is not None)  # type: ignore[misc]
                time.sleep(chance.choice((0, 0, 0.002, 0.02)))
            process.kill()
            process.join()
            kinds.append("time" if mark is None else mark[0])
            if process.exitcode == 0:  # too late: draw again
                return kill_one(number, seed + 1, seconds, whole, tally)
        if "Traceback" in said(folder):
            faults.append(f"a traceback: {said(folder)[-500:]}")
        tally.add(" then ".join(kinds), faults + finish(folder, whole))


def signal_one(number: int, seed: int, seconds: float, whole: Path, tally: Tally) -> None:
    chance = random.Random(f"{seed} signal {number}")
    which, twice = (signal.SIGTERM, signal.SIGINT)[number % 2], number // 2 % 2
    code = 128 + which
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = started(folder, BEGIN)
        wait_until_begun(process)
        ended_at(process, time.monotonic() + chance.uniform(0, seconds))
        began = time.monotonic()
        late = process.poll() is not None
        process.send_signal(which)
        if twice:
            ended_at(process, time.monotonic() + chance.uniform(0, 0.1))
            process.send_signal(which)
        faults = []
        try:
            process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            faults.append("it went on")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        took = time.monotonic() - began
        text = said(folder)
        if not late and process.returncode not in (code, 0):
            faults.append(f"exit code {process.returncode}: {text[-300:]}")
        if process.returncode == code and text.count("\n") != 0:
            faults.append(f"more than a sentence: {text[-500:]}")
        if process.returncode == code and not text.startswith(("interrupted", "terminated")):
            faults.append(f"said {text[-300:]!r}")
        resumable = any((folder / "run" / "checkpoints").glob("*.ckpt"))
        if process.returncode == code and ("--resume" in text) != resumable:
            faults.append(f"said {text!r} where a checkpoint is {'there' if resumable else 'missing'}")
        kind = f"{which.name}{' twice' if twice else ''}{' (too late)' if process.returncode == 0 else ''}"
        tally.add(kind, faults + finish(folder, whole), took)


def wait_until_begun(process: subprocess.Popen[bytes]) -> None:
    """Until the command is in its own code: Python's start-up is Python's."""
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:") and int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
                return
        time.sleep(0.001)


def ended_at(process: subprocess.Popen[bytes], moment: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(moment - time.monotonic(), 0.001))


def session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(rest[3]) == leader and rest[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def rank_one(number: int, seed: int, seconds: float, tally: Tally) -> None:
    chance = random.Random(f"{seed} ranks {number}")
    which, rank = (signal.SIGTERM, signal.SIGKILL)[number % 2], number // 2 % 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = started(folder, [*BEGIN, "--devices", "2", "--data.batch_size", "8", "--optim.epochs", "20"])
        while process.poll() is None and len(session(process.pid)) < 2:
            time.sleep(0.02)
        # half of them while the second rank imports and the group is made, half while they train
        if chance.random() < 0.3:
            ended_at(process, time.monotonic() + chance.uniform(0, 0.5 * seconds))
        else:
            wait_for_mark(folder, ("checkpoints/last.ckpt", 1), lambda: process.poll() is not None)
            ended_at(process, time.monotonic() + chance.uniform(0, 0.5 * seconds))
        pids = session(process.pid)
        faults, began = [], time.monotonic()
        if len(pids) < 2:  # too late: draw again
            process.wait()
            return rank_one(number, seed + 1, seconds, tally)
        target = process.pid if rank == 0 else next(pid for pid in pids if pid != process.pid)
        os.kill(target, which)
        while (left := session(process.pid)) and time.monotonic() - began < WITHIN:
            process.poll()
            time.sleep(0.02)
        took = time.monotonic() - began
        if left:
            faults.append(f"{len(left)} processes left after {took:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        expected = (-which if which == signal.SIGKILL and rank == 0 else 128 + which, 0)
        text = said(folder)
        if process.returncode not in expected:
            faults.append(f"exit code {process.returncode}: {text[-300:]}")
        if process.returncode != 0 and (len(text.splitlines()) != 1 or "Traceback" in text):
            faults.append(f"not one sentence: {text[-800:]!r}")
        tally.add(f"{which.name} to rank {rank}", faults, took)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50, help="SIGKILLs; the other sets are smaller in proportion")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    FORKS.set_forkserver_preload(["fastproto.training.run", "fastproto.plots", "matplotlib.figure"])
    began = time.monotonic()
    tallies = [Tally("SIGKILL, then resumed"), Tally("SIGTERM and SIGINT"), Tally("one of two ranks")]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        whole, quick, slow = undisturbed(Path(name))
        print(f"a run that is left alone takes {quick:.1f} s, and {slow:.1f} s with its imports", flush=True)
        jobs = [pool.submit(kill_one, n, options.seed, quick, whole, tallies[0]) for n in range(options.runs)]
        signals, ranks = max(2 * options.runs // 5, 1), max(3 * options.runs // 5, 1)
        jobs += [pool.submit(signal_one, n, options.seed, slow, whole, tallies[1]) for n in range(signals)]
        jobs += [pool.submit(rank_one, n, options.seed, slow, tallies[2]) for n in range(ranks)]
        for job in jobs:
            job.result()
    for tally in tallies:
        print(tally.report())
    print(f"in {(time.monotonic() - began) / 60:.1f} minutes")
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
