"""Runs the three sets, two runs at a time, and prints their counts."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib.kills.runs import FORKS, end_all, undisturbed
from lib.kills.sets import kill_one, rank_one, signal_one
from lib.kills.tally import Tally

IMPORTS = ["lightning.pytorch", "fastproto.training.run", "fastproto.plots", "matplotlib.figure"]


def main(arguments: list[str], description: str) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/kills", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50, help="SIGKILLs; the other sets are smaller in proportion")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    FORKS.set_forkserver_preload(IMPORTS)
    began = time.monotonic()
    killed, signalled, ranks = Tally("SIGKILL, then resumed"), Tally("SIGTERM and SIGINT"), Tally("one of two ranks")
    sets = (
        (kill_one, killed, options.runs),
        (signal_one, signalled, max(2 * options.runs // 5, 1)),
        (rank_one, ranks, max(3 * options.runs // 5, 1)),
    )
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        try:
            whole = undisturbed(Path(name))
            times = f"{whole.seconds:.1f} s, and {whole.seconds_with_imports:.1f} s with its imports"
            print(f"an undisturbed run takes {times}", flush=True)
            jobs = [
                pool.submit(one, number, options.seed, whole, tally)
                for one, tally, count in sets
                for number in range(count)
            ]
            for job in jobs:
                job.result()
        except BaseException:  # SIGTERM and Ctrl-C too
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise
    for _, tally, _ in sets:
        print(tally.report())
    print(f"in {(time.monotonic() - began) / 60:.1f} minutes")
    return int(any(tally.failures for _, tally, _ in sets))
