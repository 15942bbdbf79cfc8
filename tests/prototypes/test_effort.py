"""effort="normal": what it reaches, what it says, and that effort="best" is the whole search."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from fastproto import PrototypeHead, baselines, estimate_prototypes
from fastproto.prototypes import Prototypes, budget, closed_form, code_capacity, estimate, quick_search, starts
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.search import search_uniform
from fastproto.prototypes.starts import first_points, random_start, random_value, turned_copies
from fastproto.prototypes.stopping import NearTheEnd
from fastproto.support.options import Effort
from fastproto.training.build_head import build_head
from fastproto.training.heads import HEADS, heads_that_take
from fastproto.training.settings_and_flags import HeadConfig

# --- what is reached -------------------------------------------------------------------------------------------------

# (C, D): the lowest L_uni that is known; of effort="best", of longer descents, of a binary code or of copies
LOWEST = {
    (100, 25): -3.87127,
    (200, 50): -3.93376,
    (288, 16): -3.607283,
    (300, 128): -3.994067,
    (1000, 20): -3.636456,
    (1000, 64): -3.89828,
    (2000, 16): -3.528182,
}


@pytest.mark.parametrize(("classes", "dim"), LOWEST)
def test_ninety_nine_percent_of_the_way_from_random_to_the_best(classes: int, dim: int) -> None:
    found = estimate_prototypes(classes, dim, cache=False)
    random = random_value(classes, dim, 2.0)
    assert random - found.quality.uniformity >= 0.99 * (random - LOWEST[classes, dim])
    assert found.method == ("binary_code" if classes == code_capacity(dim) else "lbfgs")


def test_the_max_cosine_too() -> None:
    found = estimate_prototypes(100, 16, objective="max_cosine", cache=False)
    assert found.quality.max_cosine <= 0.2052 + 0.01 * (0.765 - 0.2052)  # the best known, and random points


def test_best_is_the_whole_search() -> None:
    best = estimate_prototypes(40, 6, effort="best", max_passes=6000, cache=False)
    whole = Budget(6000)
    assert torch.equal(best.vectors, search_uniform(40, 6, 2.0, 0, whole).float())
    normal = estimate_prototypes(40, 6, cache=False)
    assert normal.passes < best.passes == whole.spent
    assert best.quality.uniformity < normal.quality.uniformity


def test_the_same_bits_on_any_number_of_threads() -> None:
    found = []
    for threads in (2, 3, 1):
        torch.set_num_threads(threads)
        found.append(estimate_prototypes(1700, 16, max_passes=12, cache=False).vectors)
        assert torch.get_num_threads() == threads
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


# --- the rule --------------------------------------------------------------------------------------------------------


def stops_at(values: list[float]) -> int | None:
    """The pass at which a descent of these values from 1 towards a bound of -1 stops."""
    near = NearTheEnd(10**6, 100, 1.0, -1.0)
    return next((k for k, value in enumerate(values, 1) if near(k, value)), None)


@pytest.mark.parametrize("power", [0.7, 1.0, 2.0])
def test_what_is_left_of_a_power_law(power: float) -> None:
    stop = stops_at([k**-power for k in range(1, 3000)])
    assert stop is not None and stop**-power <= 0.0105


def test_a_descent_stops_at_the_bound_and_goes_on_while_it_falls() -> None:
    assert stops_at([1.0, 0.0, -0.985]) == 3
    assert stops_at([1 - 0.01 * k for k in range(150)]) is None
    assert stops_at([0.0] * 20) == 8


# --- copies ----------------------------------------------------------------------------------------------------------


def test_copies_are_unit_and_come_with_their_opposites() -> None:
    points = first_points(1001, 20, 2.0, 0, Budget())
    assert points.shape == (1001, 20) and points.dtype == torch.float64
    torch.testing.assert_close(torch.linalg.vector_norm(points, dim=1), torch.ones(1001, dtype=torch.float64))
    size = 251  # two copies of so many, and two opposites
    torch.testing.assert_close(points[:size], -points[size : 2 * size])
    assert not torch.equal(points, first_points(1001, 20, 2.0, 1, Budget()))
    assert torch.equal(points, first_points(1001, 20, 2.0, 0, Budget()))
    assert torch.equal(first_points(999, 10, 2.0, 0, Budget()), random_start(999, 10, 0))  # enough points for more


def test_copies_are_as_well_spread_as_what_is_copied() -> None:
    found = closed_form(5, 4)
    assert found is not None
    base = found[0]  # a simplex: its rows sum to zero, their squares are the same in every direction
    points = turned_copies(base, 50, 0)
    cosines = points @ points.T
    torch.testing.assert_close(cosines[10:15, 10:15], base.double() @ base.double().T)
    torch.testing.assert_close(points.sum(0), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(points.T @ points, 50 / 4 * torch.eye(4, dtype=torch.float64))
    assert cosines[:5, 5:].max() > 0.3  # turned, each by itself


@pytest.mark.parametrize(("classes", "dim", "copied"), [(500, 16, 288), (700, 40, 175), (1300, 25, 650)])
def test_large_sizes_begin_at_copies(classes: int, dim: int, copied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these sizes were large: at those of a binary code, of a quarter of the points, of opposite pairs."""
    monkeypatch.setattr(quick_search, "LARGE", 1)
    monkeypatch.setattr(quick_search, "MOST", 17 * classes**2 * dim)
    sizes: list[int] = []

    def copies(base: Tensor, num_classes: int, seed: int) -> Tensor:
        sizes.append(len(base))
        return turned_copies(base, num_classes, seed)

    monkeypatch.setattr(quick_search, "turned_copies", copies)
    monkeypatch.setattr(starts, "turned_copies", copies)
    found = estimate_prototypes(classes, dim, cache=False)
    assert sizes == [copied]
    assert found.passes <= 17 + 3 and found.vectors.shape == (classes, dim)


def test_limits_hold_for_copies() -> None:
    for passes in (1, 2, 5):
        assert estimate_prototypes(1000, 20, max_passes=passes, cache=False).passes <= passes


# --- what is said ----------------------------------------------------------------------------------------------------


def test_a_line_for_those_who_waited(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(estimate, "PATIENCE", -1.0)
    found = estimate_prototypes(30, 5, cache=False)
    said = capsys.readouterr().err
    begin = f"fastproto: prototypes for C = 30, D = 5: {found.seconds:.0f} s, {found.passes} passes, L_uni -3.15"
    assert said.startswith(begin) and said.count("\n") == 1
    assert "random points -2.65" in said and "no set below -3.1" in said
    assert said.endswith("within about 1 % of what a longer search gains; effort='best' goes on\n")
    estimate_prototypes(30, 5, max_passes=3, cache=False)
    assert "within" not in capsys.readouterr().err
    estimate_prototypes(30, 5, objective="max_cosine", max_passes=50, cache=False)
    assert "L_uni" not in capsys.readouterr().err
    estimate_prototypes(30, 5, progress=False, cache=False)
    monkeypatch.setattr(estimate, "PATIENCE", 1e9)
    estimate_prototypes(30, 5, cache=False)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_to_those_who_wait_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for patience, stream, shown in ((-1.0, Terminal(), True), (1e9, Terminal(), False), (-1.0, io.StringIO(), False)):
        monkeypatch.setattr(budget, "PATIENCE", patience)
        monkeypatch.setattr(estimate, "PATIENCE", 1e9)
        monkeypatch.setattr("sys.stderr", stream)
        estimate_prototypes(30, 5, max_passes=3, cache=False)
        assert stream.getvalue().startswith("\rprototypes: pass 1 of 3") == shown
        assert stream.getvalue().count("\n") == shown


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["head", "baselines.fixed_softmax", "baselines.hpn"])
def test_heads_pass_the_effort_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = {"head": PrototypeHead, "baselines.hpn": baselines.HPNHead}.get(name, baselines.FixedSoftmaxHead)
    asked: list[str] = []

    def estimated(classes: int, dim: int, *, effort: Effort, **_: Any) -> Prototypes:
        asked.append(effort)
        return estimate_prototypes(classes, dim)

    monkeypatch.setattr(f"fastproto.{name}.estimate_prototypes", estimated)
    head(5, 4, effort="best")
    head(5, 4)
    assert asked == ["best", "normal"]
    with pytest.raises(ValueError, match="effort is 'more'; expected 'normal' or 'best'"):
        head(5, 4, effort="more")


def test_runs_pass_the_effort_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    for name in heads_that_take("effort"):
        monkeypatch.setattr(HEADS[name].made_by.replace(":", "."), lambda *_, **options: asked.append(options))
        build_head(HeadConfig(name=name, effort="best"), ("a", "b", "c"), 0)
    assert [options["effort"] for options in asked] == ["best"] * 4
