"""What the benchmarks compare: every row has a name of its own and is described, and rounds are taken in turn."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks import ceilings, groups
from benchmarks.comparison import (
    SCALES,
    Comparison,
    Provider,
    Scale,
    Setup,
    Unavailable,
    Work,
    cases,
    reason_not_to_run,
)
from benchmarks.groups import Measured, Session
from benchmarks.memory import extra_peak
from benchmarks.peers import MOST, imported, one_line
from benchmarks.timing import Clock, Run, Timed, interleaved

from .results_file import comparisons

CPU = torch.device("cpu")


def comparison(**providers: Provider) -> Comparison:
    return Comparison(
        op="op",
        sizes={"smoke": [{"C": 4}], "small": [{"C": 4}, {"C": 9}], "full": [{"C": 4}]},
        inputs=lambda size, device: size["C"],
        providers=providers,
        work=lambda size: Work(flops=8.0),
        serial_part="all of it",
    )


def test_every_op_of_the_package_is_compared() -> None:
    found = comparisons()
    ops = {"head_step", "ipm_loss", "update_class_means", "nearest_prototypes", "gaussian_potential", "uniformity_loss"}
    assert ops | {"assign", "renewals", "ceilings", "training_step", "training_epoch"} <= {each.op for each in found}
    for each in found:
        assert each.op == "ceilings" or each.serial_part, each.op


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_has_a_name_of_its_own(scale: Scale) -> None:
    names = [f"{each.op} {case}" for each in comparisons() for case in cases(each, scale, (1, 2), "cpu")]
    assert len(names) == len(set(names)) > 60


def test_what_is_not_measured_has_its_reason() -> None:
    def build(given: int) -> Setup:
        return Setup(lambda number: None)

    what = comparison(
        fastproto=Provider(build),
        slow=Provider(build, small=4),
        compiled=Provider(build, small=4, compiles=True),
        gpu=Provider(build, devices=("cuda",)),
        solver=Provider(build, serial=True),
    )
    found = cases(what, "small", (1, 2), "cpu")
    assert [str(case) for case in found if case.size["C"] == 9 and case.threads == 2] == [
        "C=9-fastproto-2",
        "C=9-slow-2",
        "C=9-gpu-2",
    ]
    reasons = {str(case): reason_not_to_run(case, "small", "cpu") for case in found}
    assert reasons["C=9-slow-1"] == "measured at --scale full: for so many classes its calls take long"
    assert reasons["C=9-compiled-1"] == "measured at --scale full: it compiles for seconds, again for each size"
    assert reasons["C=4-slow-1"] is None and reasons["C=4-compiled-1"] is None
    assert reasons["C=4-gpu-1"] == "runs on cuda only"
    assert "compiles" in (reason_not_to_run(cases(what, "smoke", (1,), "cpu")[2], "smoke", "cpu") or "")


def test_rounds_are_taken_in_turn_and_threads_restored() -> None:
    order: list[str] = []
    entries = [
        Timed(Setup(lambda number, name=name: order.append(f"{name}{torch.get_num_threads()}")), threads)  # type: ignore[misc]
        for name, threads in (("a", 1), ("b", 2), ("c", 1))
    ]
    before = torch.get_num_threads()
    interleaved(entries, Clock(CPU), 0.0, rounds=3)
    torch.set_num_threads(before)
    assert order == ["a1", "c1", "b2"] * 3
    assert all(len(entry.seconds) == 3 for entry in entries)


class Slow(Clock):
    """A clock on which every call takes as long as this."""

    def prepare(self, entry: Timed) -> Run:
        def run(first: int, count: int) -> float:
            calls = (entry.setup.call(number) for number in range(first, first + count))
            return sum(float(each) for each in calls)  # type: ignore[arg-type]  # seconds

        return run


def taking(*seconds: float, units: float = 1.0, warm: bool = False) -> Timed:
    """The first calls take so long; the last of these times is that of all others."""
    return Timed(Setup(lambda number: seconds[min(number, len(seconds) - 1)], units=units), 1, warm)


def test_rounds_fit_the_time_and_a_slow_call_is_timed_once() -> None:
    short, middle, long = taking(1e-5), taking(0.5, units=10.0), taking(9.0)
    interleaved([short, middle, long], Slow(CPU), 5.0, rounds=None)
    assert short.calls == 400 and middle.calls == 1
    assert len(short.seconds) == len(middle.seconds) == 10 and long.seconds == [9.0]
    assert short.seconds[0] == pytest.approx(1e-5) and middle.seconds[0] == pytest.approx(0.05)
    assert long.done == 2, "the first call may compile"
    hardly = taking(2.0, warm=True)
    interleaved([hardly], Slow(CPU), 5.0, rounds=None)
    assert hardly.done == 4 and len(hardly.seconds) == 3
    warm = taking(9.0, warm=True)
    interleaved([warm], Slow(CPU), 5.0, rounds=None)
    assert warm.done == 1 and warm.seconds == [9.0]
    once = taking(2.0, warm=True)
    interleaved([once], Slow(CPU, slow=1.5), 5.0, rounds=None)
    assert once.done == 1 and once.seconds == [2.0]


def test_what_compiles_for_seconds_is_no_slow_call() -> None:
    compiled = taking(2.5, 1e-5)
    interleaved([compiled], Slow(CPU), 5.0, rounds=None)
    assert compiled.calls == 400 and len(compiled.seconds) == 12
    assert compiled.seconds == pytest.approx([1e-5] * 12)


def test_a_peer_that_fails_loses_no_other_row() -> None:
    def fails(number: int) -> None:
        raise RuntimeError("no kernel image\nand more")

    peer = Timed(Setup(fails), 1, peer=True)
    ours = taking(0.5)
    interleaved([peer, ours], Slow(CPU), 1.0, rounds=None)
    assert peer.failure == "it failed: RuntimeError no kernel image" and peer.seconds == []
    assert len(ours.seconds) == 3
    with pytest.raises(RuntimeError, match="no kernel image"):
        interleaved([Timed(Setup(fails), 1)], Slow(CPU), 1.0, rounds=None)


@pytest.mark.parametrize("scale", SCALES)
def test_a_failing_peer_fails_the_test_at_smoke_alone(scale: Scale) -> None:
    def fails(given: int) -> Setup:
        raise OSError("no library")

    case = cases(comparison(peer=Provider(fails)), scale, (1,), "cpu")[0]
    if scale == "smoke":
        with pytest.raises(OSError, match="no library"):
            groups.prepared(case, 4, scale, CPU)
    else:
        assert groups.prepared(case, 4, scale, CPU) == "it failed: OSError no library"


def test_our_failure_is_that_of_every_row_and_tried_once() -> None:
    built: list[int] = []

    def ours(given: int) -> Setup:
        built.append(given)
        raise ArithmeticError("wrong")

    what = comparison(fastproto=Provider(ours), peer=Provider(lambda given: lambda number: None))
    session = Session("smoke", (1,), CPU)
    wanted = cases(what, "smoke", (1,), "cpu")
    for case in wanted:
        with pytest.raises(ArithmeticError, match="wrong"):
            session.result(case, wanted)
    assert built == [4]


def test_a_group_is_measured_once_and_failures_are_rows() -> None:
    built: list[int] = []

    def missing(given: int) -> Setup:
        raise Unavailable("it is not installed")

    def ours(given: int) -> Setup:
        built.append(given)
        return Setup(lambda number: None, facts=lambda: {"certified": True})

    what = comparison(fastproto=Provider(ours), peer=Provider(missing))
    session = Session("smoke", (1,), CPU)
    session.ceilings = lambda threads: {"product, float32": 4.0}  # type: ignore[method-assign]  # takes seconds
    wanted = cases(what, "smoke", (1,), "cpu")
    first, second = (session.result(case, wanted) for case in wanted)
    assert isinstance(first, Measured) and second == "it is not installed" and built == [4]
    assert first.info["certified"] and first.info["serial_part"] == "all of it"
    assert session.shares(first.info, 0.5) == {"share_of_product": first.info["flops"] / 0.5 / 4.0}
    assert session.absent == [groups.described(wanted[1]) | {"reason": "it is not installed"}]


def test_peak_memory_is_that_of_the_call() -> None:
    found, extra = extra_peak(lambda: len(torch.ones(8 << 20)), CPU)
    if extra is None:
        pytest.skip("this system does not tell the peak memory of a process")
    assert found == 8 << 20 and 30 < extra < 60
    assert (extra_peak(lambda: None, CPU)[1] or 0.0) < 5


def test_a_peer_that_is_missing_is_named() -> None:
    with pytest.raises(Unavailable, match="some-peer is not installed"):
        imported("no_module_of_this_name", "some-peer")


def test_a_peer_without_its_dependency_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_peer_of_tests.py").write_text("import no_dependency_of_this_name")
    (tmp_path / "an_empty_peer_of_tests.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unavailable, match="some-peer cannot be imported: No module named 'no_dependency_of_this_name'"):
        imported("a_peer_of_tests", "some-peer")
    with pytest.raises(Unavailable, match="some-peer cannot be imported: ImportError"):
        imported("an_empty_peer_of_tests", "some-peer")
    with pytest.raises(Unavailable, match="some-peer is not installed"):
        imported("no_module_of_this_name.part", "some-peer")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", "ValueError"),
        (" \n", "ValueError"),
        ("\nno kernel\nand more", "no kernel"),
        ("/opt/some/lib.so.1: cannot open shared object file", "lib.so.1: cannot open shared object file"),
        ("no such folder: '/home/some one/peer'", "no such folder: 'peer'"),
        ("dlopen(/opt/x/lib.so), file:///opt/x/y.py:3 in /opt/x/", "dlopen(lib.so), y.py:3 in x"),
        ("GLIBC:/opt/lib/libm.so", "GLIBC:libm.so"),
        ("see https://pytorch.org/docs/stable for float16/bfloat16 and a/b", None),
        ("int | None at 1/2 <module>", None),
        ("x" * 500, "x" * MOST),
    ],
)
def test_an_error_is_one_line_without_folders(message: str, line: str | None) -> None:
    assert one_line(ValueError(message)) == (message if line is None else line)


def test_the_limit_of_a_product_is_that_of_its_fastest_way() -> None:
    took: list[str] = []

    def way(name: str, seconds: float) -> ceilings.Way:
        def call() -> torch.Tensor:
            took.append(name)
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass
            return torch.empty(0)

        return call

    ways = [way("slow", 0.02), way("fast", 0.0)]
    assert ceilings.fastest(ways) is ways[1] and took == ["slow", "slow", "fast", "fast"]


def test_the_ways_of_a_product_agree() -> None:
    for precision in ("float32", "bfloat16", "int8"):
        a, b = (ceilings.factor(64, precision, CPU) for _ in range(2))
        found = ceilings.ways(a, b)
        true = a.double() @ b.double(), a.double() @ b.double().T
        for each in found:
            errors = [float((each().double() - x).norm() / x.norm()) for x in true]
            assert min(errors) < 1e-2, precision
