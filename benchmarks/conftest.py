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
from .machine import commit, device_name, load, machine, versions
from .visits import FurtherVisits

SESSION = pytest.StashKey[Session]()


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
    config.stash[SESSION] = Session(config.getoption("--scale"), counts, device, load())


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
        benchmark.extra_info["visits"] = found.visits
        REPLAY.load(found.seconds)
        benchmark.pedantic(lambda: None, rounds=len(found.seconds))

    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Further visits, before pytest-benchmark saves and compares."""
    suite = getattr(session.config, "_benchmarksession", None)
    whole = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not session.shouldfail
    if whole and suite is not None and suite.benchmarks:
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        visits = FurtherVisits(suite, session.config.stash[SESSION], wanted_cases(session), terminal)
        try:
            visits.leave_out_ceilings()
            visits.to_short_rows()
            visits.to_slower_rows()
            visits.add_shares()
        except KeyboardInterrupt:
            session.exitstatus = pytest.ExitCode.INTERRUPTED
    yield


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Adds the machine and the rows that were not measured, each with its reason, and shortens the times.

    The machine is not in ``machine_info``: that must be equal where two runs are compared, and the load is not.
    """
    session = config.stash[SESSION]
    output_json["fastproto"] = machine(session.device, session.load) | {
        "scale": session.scale,
        "threads": list(session.threads),
    }
    output_json["fastproto"]["group_seconds"] = {group: round(took, 2) for group, took in session.seconds.items()}
    output_json["not_measured"] = session.absent
    for bench in output_json["benchmarks"]:
        if "data" in bench["stats"]:
            bench["stats"]["data"] = [float(f"{seconds:.5g}") for seconds in bench["stats"]["data"]]
