"""The pytest plugin of the benchmarks: a thin layer over pytest-benchmark.

pytest-benchmark times one test after the other. Here the first row of a group times all rows of the group in turn, and
each row then hands its times to pytest-benchmark through the ``timer`` option, so that ``--benchmark-json``,
``--benchmark-compare`` and the others work as documented.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from .comparison import COMPARED, SCALES, Case, Row, cases
from .given import GIVEN
from .groups import Session, called_once
from .machine import commit, device_name, machine, versions

SESSION = pytest.StashKey[Session]()
TIMES_AGAIN = 3


class Replay:
    """A timer whose readings are 0 and the recorded time, in turn."""

    def __init__(self) -> None:
        self.readings: Iterator[float] = iter(())

    def load(self, seconds: list[float]) -> None:
        self.readings = iter([reading for each in seconds for reading in (0.0, each)])

    def __call__(self) -> float:
        return next(self.readings)


REPLAY = Replay()


def recorded() -> float:
    """The timer that pytest-benchmark is given."""
    return REPLAY()


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("fastproto benchmarks")
    options.addoption("--scale", choices=SCALES, default="smoke", help="sizes and time (default: smoke)")
    options.addoption("--threads", type=int, default=None, help="rows for one thread and for N (default: all cores)")
    options.addoption("--device", default=None, help="cpu or cuda (default: cuda if there is a GPU)")
    options.addoption("--cifar100", type=Path, default=None, help="CIFAR-100: an image folder or torchvision's files")
    options.addoption("--published", type=Path, default=None, help="folder of the authors' prototype files")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")  # from the imports of torch.compile, peers
    config.addinivalue_line("filterwarnings", "ignore::FutureWarning")
    config.addinivalue_line("filterwarnings", "ignore::UserWarning:torch")
    threads = config.getoption("--threads")
    if threads is not None and threads < 1:
        raise pytest.UsageError(f"--threads is {threads}; expected 1 or more")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    counts = tuple(sorted({1, threads or cores}))
    device = torch.device(config.getoption("--device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    GIVEN.cifar100 = config.getoption("--cifar100")
    GIVEN.published = config.getoption("--published")
    config.stash[SESSION] = Session(config.getoption("--scale"), counts, device)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    what = getattr(metafunc.function, COMPARED, None)
    if what is not None:
        session = metafunc.config.stash[SESSION]
        found = cases(what, session.scale, session.threads, session.device.type)
        metafunc.parametrize("case", found, ids=str)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every row has its group and the replayed times."""
    for item in items:
        case = case_of(item)
        if case is not None:
            item.add_marker(pytest.mark.benchmark(group=case.group, timer=recorded))


def case_of(item: pytest.Item) -> Case | None:
    found = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return found if isinstance(found, Case) else None


def wanted_cases(session: pytest.Session) -> list[Case]:
    return [case for item in session.items if (case := case_of(item)) is not None]


@pytest.fixture
def row(request: pytest.FixtureRequest, benchmark: Any) -> Row:
    """Measures the group of a case, if no other row has, and reports the case; --benchmark-disable calls it once."""
    session = request.config.stash[SESSION]
    wanted = wanted_cases(request.session)

    def report(case: Case) -> None:
        if benchmark.disabled:
            if why := called_once(case, session.scale, session.device):
                pytest.skip(why)
            benchmark.pedantic(lambda: None)
            return
        found = session.result(case, wanted)
        if isinstance(found, str):
            pytest.skip(found)
        benchmark.extra_info.update(found.info)
        benchmark.extra_info.update(
            versions=versions(), commit=commit(), machine=device_name(session.device), torch_threads=case.threads
        )
        REPLAY.load(found.seconds)
        benchmark.pedantic(lambda: None, rounds=len(found.seconds))

    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Quick rows are timed at a second moment, and once more, up to three times, where a comparison would fail.

    A machine may be slow for seconds, and all rounds of a group lie within such a time. A change that slows a row is
    slow at every moment.
    """
    suite = getattr(session.config, "_benchmarksession", None)
    if suite is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        wanted = wanted_cases(session)
        for rows in session.config.stash[SESSION].quick(wanted):
            time_again(session, suite, rows)
        for _ in range(TIMES_AGAIN):
            for group in slower_groups(suite):
                time_again(session, suite, [case for case in wanted if case.group == group])
    yield


def slower_groups(suite: Any) -> list[str]:
    """The groups with a row that ``--benchmark-compare-fail`` would report."""
    return sorted(
        {
            bench.group
            for bench in suite.benchmarks
            for known in suite.compared_mapping.values()
            for check in suite.compare_fail or ()
            if bench and bench.fullname in known and check.fails(bench, known[bench.fullname]["stats"])
        }
    )


def time_again(session: pytest.Session, suite: Any, rows: list[Case]) -> None:
    """Add rounds to rows of one group, and to what pytest-benchmark has of them."""
    measured = session.config.stash[SESSION].again(rows)
    for bench in suite.benchmarks:
        case = (bench.params or {}).get("case") if bench else None
        if isinstance(case, Case) and (found := measured.get(case)) is not None:
            bench.extra_info.update(found.info)
            bench.stats = type(bench.stats)()  # its figures are kept once computed
            for seconds in found.seconds:
                bench.update(seconds)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Adds the machine and the rows that were not measured, each with its reason, and shortens the times.

    The machine is not in ``machine_info``: that must be equal where two runs are compared, and the load is not.
    """
    session = config.stash[SESSION]
    output_json["fastproto"] = machine(session.device) | {"scale": session.scale, "threads": list(session.threads)}
    output_json["fastproto"]["group_seconds"] = {group: round(took, 2) for group, took in session.seconds.items()}
    output_json["not_measured"] = session.absent
    for bench in output_json["benchmarks"]:
        if "data" in bench["stats"]:
            bench["stats"]["data"] = [float(f"{seconds:.5g}") for seconds in bench["stats"]["data"]]
