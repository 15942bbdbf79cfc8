"""Visits to groups after the first."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import PercentageRegressionCheck

from benchmarks.comparison import Call, Case, Comparison, Provider, Setup, cases
from benchmarks.groups import FURTHER, SECONDS, Group, Measured, Session
from benchmarks.visits import FurtherVisits

CPU = torch.device("cpu")


def session_of(**providers: Provider) -> tuple[Session, list[Case]]:
    what = Comparison("sum", {"small": [{"C": 4}]}, lambda size, device: size["C"], providers)
    return Session("small", (1,), CPU), cases(what, "small", (1,), "cpu")


def nothing(given: int) -> Call:
    return lambda number: None


def measured(*seconds: float, round_seconds: float = 0.004) -> Measured:
    info = {"op": "sum", "threads": 1, "flops": 8.0, "bytes": 0.0, "precision": "float32"}
    return Measured(list(seconds), info, round_seconds, [len(seconds)])


def test_rounds_follow_those_of_earlier_visits() -> None:
    first, second = measured(1.0, 2.0, 3.0), measured(4.0)
    joined = first.followed_by(second, 1, False)
    assert (joined.seconds, joined.visits) == ([1.0, 2.0, 3.0, 4.0], [3, 1])
    assert first.followed_by(second, 2, False).visits == [3, 0, 1], "it had no part in the second visit"
    of_other_calls = first.followed_by(measured(2.0, 1.0, 3.0), 1, True)
    assert (of_other_calls.seconds, of_other_calls.visits) == ([1.0, 1.0, 3.0], [3])


def test_a_row_that_fails_at_a_later_visit_keeps_what_it_had() -> None:
    calls: list[int] = []

    def fails_late(given: int) -> Call:
        def call(number: int) -> None:
            calls.append(number)
            if len(calls) > kept:
                raise RuntimeError("late")

        return call

    kept = 10**9
    session, wanted = session_of(fastproto=Provider(nothing), peer=Provider(fails_late))
    first = {case: session.result(case, wanted) for case in wanted}
    kept = len(calls)
    found = session.again(wanted)
    ours, peer = wanted
    assert list(found) == [ours] and len(found[ours].visits) == 2
    assert session.result(peer, wanted) == first[peer] and isinstance(first[peer], Measured)


def test_a_peer_that_fails_in_a_round_loses_no_other_row() -> None:
    calls: list[int] = []

    def call(number: int) -> None:
        calls.append(number)
        if len(calls) > 5:
            raise RuntimeError("in a round")

    session, wanted = session_of(fastproto=Provider(nothing), peer=Provider(lambda given: call))
    ours, peer = (session.result(case, wanted) for case in wanted)
    assert isinstance(ours, Measured) and peer == "it failed: RuntimeError in a round"


def test_second_visits_are_to_short_rows_and_fit_the_time() -> None:
    session, wanted = session_of(fastproto=Provider(nothing), slow=Provider(nothing), lazy=Provider(nothing))
    compiled = Provider(nothing, compiles=True)
    wanted += session_of(compiled=compiled)[1]
    rows: dict[str, Measured | str] = {str(case): measured(0.004) for case in wanted}
    rows[str(wanted[1])] = measured(0.2, round_seconds=0.2)
    rows[str(wanted[2])] = "not installed"
    session.groups = {wanted[0].group: Group(rows, 0.1)}
    assert session.second_visits(wanted) == [[wanted[0]]]
    session.groups = {wanted[0].group: Group(rows, FURTHER * SECONDS["small"])}
    assert session.second_visits(wanted) == [], "its inputs take too long to make"
    session.groups = {wanted[0].group: ArithmeticError("wrong")}
    assert session.second_visits(wanted) == []


def test_units_of_a_call_do_not_make_it_short() -> None:
    session, wanted = session_of(fastproto=Provider(lambda given: Setup(lambda number: None, units=1e9)))
    row = session.result(wanted[0], wanted)
    assert isinstance(row, Measured) and row.round_seconds > 1e6 * row.seconds[0]


class Row(SimpleNamespace):
    """What of a row of pytest-benchmark is used here."""

    def update(self, seconds: float) -> None:
        self.stats.update(seconds)

    def __getitem__(self, key: str) -> float:
        return float(getattr(self.stats, key))


def suite_of(case: Case, row: Measured, before: float) -> Any:
    stats = Stats()
    for seconds in row.seconds:
        stats.update(seconds)
    bench = Row(fullname="a", group=case.group, params={"case": case}, extra_info=dict(row.info), stats=stats)
    known = {"a": {"stats": {"min": before, "max": before}}}
    return SimpleNamespace(benchmarks=[bench], compared_mapping={"saved": known}, compare_fail=[])


class Terminal:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text.strip())


def slow_then_fine() -> tuple[FurtherVisits, Row]:
    """A row that took a second at its first visit, and takes far less than the millisecond of a saved run."""
    session, wanted = session_of(fastproto=Provider(nothing))
    row = measured(1.0, 1.0, 1.0)
    session.groups, session.seconds = {"sum C=4": Group({str(wanted[0]): row}, 0.0)}, {"sum C=4": 3.0}
    suite = suite_of(wanted[0], row, 1e-3)
    suite.compare_fail = [PercentageRegressionCheck("min", 30)]
    return FurtherVisits(suite, session, wanted, Terminal()), suite.benchmarks[0]


def test_a_group_is_timed_again_until_no_row_is_slower() -> None:
    visits, row = slow_then_fine()
    assert visits.slower_groups() == ["sum C=4"]
    visits.suite.benchmarks.append(Row(fullname="a", group=None, params=None, stats=row.stats))  # of another kind
    visits.to_slower_rows()
    assert visits.slower_groups() == [] and row.stats.min < 1e-3 and row.stats.max == 1.0
    assert len(row.extra_info["visits"]) == 2 and visits.terminal.lines == [
        "slower than before, timed once more: sum C=4"
    ]


def test_the_limits_of_the_machine_are_not_compared() -> None:
    visits, _ = slow_then_fine()
    known = visits.suite.compared_mapping["saved"]
    known["a"]["extra_info"], known["copy"] = {"op": "sum"}, {"extra_info": {"op": "ceilings"}}
    visits.leave_out_ceilings()
    assert list(known) == ["a"]


def test_a_row_that_stays_slow_is_reported() -> None:
    visits, row = slow_then_fine()
    visits.suite.compared_mapping["saved"]["a"]["stats"]["min"] = 1e-12
    visits.to_slower_rows()
    assert visits.slower_groups() == ["sum C=4"] and len(row.extra_info["visits"]) == 4
    visits.suite.compare_fail = [PercentageRegressionCheck("max", 30)]
    assert visits.slower_groups() == [], "no further round lowers the slowest"


def test_a_visit_that_fails_leaves_the_row_as_it_was() -> None:
    visits, row = slow_then_fine()

    def broken(given: int) -> Call:
        raise MemoryError("no memory")

    (case,) = visits.wanted
    failing = replace(case, comparison=replace(case.comparison, providers={"fastproto": Provider(broken)}))
    replace(visits, wanted=[failing]).to_short_rows()
    assert row.stats.data == [1.0, 1.0, 1.0]
    assert visits.terminal.lines[-1] == "sum C=4 could not be timed once more: it failed: MemoryError no memory"


def test_shares_are_of_the_limits_of_the_fastest_rounds() -> None:
    visits, row = slow_then_fine()
    visits.session.ceilings = lambda threads: {"product, float32": 16.0}  # type: ignore[method-assign]  # takes seconds
    visits.add_shares()
    assert row.extra_info["share_of_product"] == pytest.approx(8.0 / 1.0 / 16.0)


def test_limits_that_cannot_be_measured_lose_no_row() -> None:
    visits, row = slow_then_fine()

    def broken(threads: int) -> dict[str, float]:
        raise MemoryError("no memory")

    visits.session.ceilings = broken  # type: ignore[method-assign]  # takes seconds
    visits.add_shares()
    assert row.stats.data == [1.0, 1.0, 1.0]
    assert visits.terminal.lines == ["shares of the machine's limits are missing: it failed: MemoryError no memory"]
