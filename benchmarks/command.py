"""fastproto-bench: runs the benchmarks and writes their report."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastproto
from fastproto.cli.command_runner import run_command
from fastproto.cli.parser import Parser

HERE = Path(__file__).parent
NEEDED = ("pytest", "pytest_benchmark", "markdown", "matplotlib", "tqdm")
SCALES = ("smoke", "small", "full")


def bench(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-bench."""
    return run_command(lambda given: _bench(parse_bench(given)), args)


def parse_bench(args: list[str]) -> argparse.Namespace:
    """Parse the command-line arguments.

    Raises:
        ValueError: an unknown option or value, in one sentence.
        SystemExit: after --help or --version.
    """
    parser = Parser(
        prog="fastproto-bench",
        description="Time fastproto beside the peers that are installed, and write a folder with results.json, "
        "report.md, report.html and plots.",
    )
    parser.add_argument("--out", type=Path, default=Path("fastproto-bench"), help="a new folder (default: %(default)s)")
    parser.add_argument("--scale", choices=SCALES, default="small", help="smoke: 3 minutes; small: 10; full: an hour")
    parser.add_argument("--threads", type=int, help="rows for one thread and for N (default: all cores)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is a GPU")
    parser.add_argument("--cifar100", type=Path, metavar="DIR", help="an image folder, or torchvision's files")
    parser.add_argument("--published", type=Path, metavar="DIR", help="folder of the authors' prototype files")
    parser.add_argument("-k", metavar="EXPRESSION", help="only rows whose names match, as pytest's -k")
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    found: argparse.Namespace = parser.parse_args(args)
    return found


def _bench(options: argparse.Namespace) -> None:
    _check(options)
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.json"
    with tempfile.TemporaryDirectory() as storage:  # else pytest-benchmark makes a folder here
        stopped = _run(options, results, Path(storage))
    plots = write_report(results, options.out)
    print(f"written to {options.out}: report.html, report.md, results.json{''.join(f', {plot}' for plot in plots)}")
    if stopped:
        raise KeyboardInterrupt


def _check(options: argparse.Namespace) -> None:
    """Raise for what would fail later, before anything is written."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"fastproto-bench needs {', '.join(missing)}; install it with pip install 'fastproto[bench]'")
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"--threads is {options.threads}; expected 1 or more")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ValueError(f"--out is {options.out}, which exists and is not empty; expected a new folder")
    for name in ("cifar100", "published"):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            raise ValueError(f"--{name} is {folder}, which is no folder; expected the folder of the files")


def _run(options: argparse.Namespace, results: Path, storage: Path) -> bool:
    """Run pytest on the installed benchmarks; its output goes to log.txt. Returns whether it was stopped."""
    import pytest

    arguments = [str(HERE), "-c", os.devnull, f"--rootdir={HERE}", "--import-mode=importlib", "-p", "no:cacheprovider"]
    arguments += ["-o", "python_files=bench_*.py", "-v", f"--benchmark-json={results}"]
    arguments.append(f"--benchmark-storage={storage.as_uri()}")
    for name in ("scale", "threads", "device", "cifar100", "published"):
        value = getattr(options, name)
        if value is not None:
            arguments.append(f"--{name}={value.resolve() if isinstance(value, Path) else value}")
    if options.k:
        arguments += ["-k", options.k]
    log = options.out / "log.txt"
    with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = pytest.main(arguments, plugins=[Progress()])
    stopped = code == pytest.ExitCode.INTERRUPTED
    if stopped and not results.is_file():
        raise KeyboardInterrupt
    if not (stopped or code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)) or not results.is_file():
        raise RuntimeError(f"pytest ended with exit code {int(code)} and there are no results; see {log}")
    if code == pytest.ExitCode.TESTS_FAILED:
        print(f"some rows failed and are missing; see {log}", file=sys.stderr)
    return stopped


class Progress:
    """A pytest plugin: a progress bar on standard error."""

    def pytest_collection_finish(self, session: Any) -> None:
        from tqdm import tqdm

        self.bar = tqdm(total=len(session.items), unit="row", file=sys.__stderr__, disable=None)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.bar.set_postfix_str(nodeid.partition("::test_")[2].partition("[")[0], refresh=False)
        self.bar.update()
        if self.bar.n == self.bar.total:
            self.bar.set_postfix_str("short calls once more")

    def pytest_sessionfinish(self) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


def write_report(results: Path, folder: Path) -> list[str]:
    """Write report.md, report.html and the plots of a JSON file of pytest-benchmark; returns the names of the plots.

    Raises:
        OSError, ValueError: a file that cannot be read or written.
    """
    from .pages.page import complete_page, html_page
    from .pages.pictures import draw
    from .pages.plots import PLOTS
    from .pages.results import read

    found, drawn = read(json.loads(results.read_text(encoding="utf-8"))), {}
    for name, (_, plot) in PLOTS.items():
        panels = plot(found)
        if panels:
            draw(panels, folder / f"{name}.png")
            drawn[name] = f"{name}.png"
    text = complete_page(found, drawn)
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(html_page(text, folder), encoding="utf-8")
    return list(drawn.values())
