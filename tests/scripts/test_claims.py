"""Verdicts on the paper's claims, from records that no run has made."""

from __future__ import annotations

from typing import Any

import pytest

from lib.report.claims import CLAIMS, table

from .made_up import made_up

Records = list[dict[str, Any]]
RENEWED = "Renewing the assignment raises accuracy, D < C - 1"


def verdicts(records: Records, **computed: Records) -> dict[str, tuple[str, str]]:
    """By claim: the verdict and its numbers."""
    _, _, *lines = table(records, computed.get("table7"), computed.get("figure2")).splitlines()
    cells = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    return {claim: (verdict, numbers) for claim, _, verdict, numbers in cells}


def pair(dim: int, ours: float, other: float, method: str = "fixed", **changed: Any) -> Records:
    return [made_up("dynamic", dim, ours, **changed), made_up(method, dim, other, **changed)]


def test_without_records_nothing_is_measured() -> None:
    assert set(verdicts([]).values()) == {("not measured", "")} and len(verdicts([])) == len(CLAIMS) > 15


@pytest.mark.parametrize(
    ("ahead_by", "verdict"),
    [
        ((0.05, 0.0), "holds"),  # 2.5 points on average
        ((0.02, 0.0), "does not hold here"),  # within the noise of two runs: 1.5 / √2
        ((0.0225, 0.0), "holds"),
        ((0.05, -0.02), "does not hold here"),  # behind at one D
        ((-0.05, -0.05), "does not hold here"),
    ],
)
def test_a_lead_is_one_on_average_and_nowhere_a_loss(ahead_by: tuple[float, float], verdict: str) -> None:
    records = pair(10, 0.5 + ahead_by[0], 0.5) + pair(25, 0.5 + ahead_by[1], 0.5)
    numbers = f"cnn, 20 epochs: D = 10: {100 * ahead_by[0]:+.2f}, D = 25: {100 * ahead_by[1]:+.2f}"
    assert verdicts(records)[RENEWED] == (verdict, numbers)


def test_only_runs_of_equal_data_budget_and_seed_are_compared() -> None:
    ours = made_up("dynamic", 10, 0.9)
    others = [
        made_up("fixed", 10, 0.1, epochs=30),
        made_up("fixed", 10, 0.1, recipe="resnet32"),
        made_up("fixed", 10, 0.1, seed=1),
        made_up("fixed", 10, 0.1, precision="bf16-mixed"),
        made_up("fixed", 10, 0.1, data="imagenet200"),
        made_up("fixed", 10, 0.1, overrides=(("optim.lr", "1"),)),
        made_up("fixed", 100, 0.1),
    ]
    assert verdicts([ours, *others])[RENEWED] == ("not measured", "")
    own_study = [made_up(method, 10, 0.5, table="losses") for method in ("dynamic", "fixed")]
    assert verdicts(own_study)[RENEWED] == ("not measured", "")


def test_seeds_are_averaged_and_budgets_judged_apart() -> None:
    seeds = pair(10, 0.5, 0.4) + pair(10, 0.6, 0.4, seed=1)
    longer = pair(10, 0.5, 0.6, recipe="resnet32", epochs=30)
    verdict, numbers = verdicts(seeds + longer)[RENEWED]
    assert verdict == "cnn, 20 epochs: holds; ResNet-32, 30 epochs: does not hold here"
    assert numbers == "cnn, 20 epochs: D = 10: +15.00; ResNet-32, 30 epochs: D = 10: -10.00"


def test_recipes_of_one_backbone_with_equal_epochs_are_judged_together() -> None:
    balanced = pair(10, 0.5, 0.4, recipe="resnet32", epochs=200)
    tail = pair(128, 0.5, 0.4, "psc", recipe="resnet32-lt", epochs=200, data="cifar100-lt-0.01", table="table5")
    found = verdicts(balanced + tail)
    assert found[RENEWED][0] == found["The same on long tails"][0] == "holds"


def test_where_the_lead_is_largest_needs_two_dimensions() -> None:
    claim = "Its lead over them is largest where D is small"
    small, large = pair(10, 0.5, 0.3, "psc"), pair(100, 0.6, 0.55, "psc")
    assert verdicts(small)[claim][0] == "not measured"
    assert verdicts(small + large)[claim][0] == "holds"
    assert verdicts(pair(10, 0.5, 0.5, "psc") + large)[claim][0] == "does not hold here"


def test_half_the_dimension_is_compared_with_every_rival() -> None:
    claim = "At D = 50 it is ahead of psc and hpn at D = 100"
    ours, psc = made_up("dynamic", 50, 0.6), made_up("psc", 100, 0.5)
    assert verdicts([ours, psc])[claim][0] == "not measured"
    assert verdicts([ours, psc, made_up("hpn", 100, 0.55)])[claim][0] == "holds"
    refuted = [ours, made_up("hpn", 100, 0.65)]  # whatever psc would be
    for records in (refuted, [*refuted, psc]):
        verdict, numbers = verdicts(records)[claim]
        assert verdict == "does not hold here" and numbers.endswith("against hpn, D = 100: -5.00")


def test_labels_settle_where_late_renewals_move_less_than_half() -> None:
    claim = "Renewals move fewer labels as training goes on"
    falling, steady = (None, 0.8, 0.4, 0.3), (None, 0.8, 0.7, 0.6)
    assert verdicts([made_up("dynamic", 10, 0.5, moved=falling)])[claim] == (
        "holds",
        "cnn, 20 epochs: D = 10: 80 % to 30 %",
    )
    both = [made_up("dynamic", dim, 0.5, moved=moved) for dim, moved in ((10, falling), (25, steady))]
    assert verdicts(both)[claim][0] == "does not hold here"
    assert verdicts([made_up("dynamic", 10, 0.5, moved=(None, 0.5))])[claim][0] == "not measured"


def test_etf_may_be_level_and_one_renewal_enough() -> None:
    tail: dict[str, Any] = {"data": "cifar100-lt-0.01", "table": "table5"}
    level, behind = pair(128, 0.4, 0.405, "etf", **tail), pair(128, 0.4, 0.42, "etf", **tail)
    claim = "On long tails dynamic is not behind ETF"
    assert [verdicts(records)[claim][0] for records in (level, behind)] == ["holds", "does not hold here"]
    assert verdicts(level)["The same on long tails"] == ("not measured", "")
    often = (("head.renewals_per_epoch", "10"),)
    claim = "One renewal an epoch is enough"
    for test, verdict in ((0.505, "holds"), (0.52, "does not hold here")):
        records = [made_up("dynamic", 50, 0.5), made_up("dynamic", 50, test, table="figure3b", overrides=often)]
        assert verdicts(records)[claim][0] == verdict


def test_scales_of_the_cross_entropy_are_claims_of_their_own() -> None:
    records = [made_up("fixed", 50, 0.5, table="table2")]
    records += [
        made_up("fixed-softmax", 50, test, table="table9", overrides=(("head.scale", scale),))
        for scale, test in (("1", 0.3), ("16", 0.6))
    ]
    found = [
        verdicts(records)[f"On fixed prototypes Eq. 6 is ahead of cross-entropy with scale {s}"][0] for s in ("1", "16")
    ]
    assert found == ["holds", "does not hold here"]


@pytest.mark.parametrize(("reached", "verdict"), [(0.015, "holds"), (0.25, "does not hold here")])
def test_the_descent_of_table_7(reached: float, verdict: str) -> None:
    size = {"classes": 100, "dim": 50}
    rows = [{**size, "what": "paper", "max_cosine": "0.01"}, {**size, "what": "SGD, eq5", "max_cosine": reached}]
    rows.append({"classes": 100, "dim": 100, "what": "SGD, eq5", "max_cosine": 0.0})
    claim = "Its descent makes opposite pairs of 100 prototypes, D = 50"
    assert verdicts([], table7=rows)[claim] == (verdict, f"{reached:.3f}; the paper's 0.01")


@pytest.mark.parametrize(("angle", "verdict"), [(90.9, "holds"), (80.0, "does not hold here")])
def test_the_average_angle_of_figure_2(angle: float, verdict: str) -> None:
    rows = [
        {"part": "sets", "what": "50 copies of u and 50 of -u", "mean_angle": angle, "distance": 0.0},
        {"part": "sets", "what": "fastproto, uniform", "mean_angle": 90.8, "distance": 0.05},
    ]
    assert verdicts([], figure2=rows)["The average angle hides degenerate prototypes"][0] == verdict
