"""Verdicts on the paper's claims, from records that no run has made."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lib.report.claims import CLAIMS, table
from lib.reproduce.tables import TABLES, UNCHECKED

from .made_up import made_up

Records = list[dict[str, Any]]
RENEWED = "Renewing the assignment raises accuracy, D < C - 1"


def verdicts(records: Records, **computed: Records) -> dict[str, tuple[str, str]]:
    """By claim: the verdict and its numbers."""
    text = table(records, computed.get("table7"), computed.get("figure2"))
    _, _, *lines = (line for line in text.splitlines() if line.startswith("|"))
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
        ((0.02, 0.0), "within the noise"),  # within the noise of two runs: 1.5 / √2
        ((0.0225, 0.0), "holds"),
        ((0.05, -0.02), "does not hold here"),  # behind at one D
        ((0.0, -0.02), "does not hold here"),
        ((-0.02, 0.02), "does not hold here"),
        ((-0.014, 0.014), "within the noise"),
        ((-0.014, -0.014), "does not hold here"),  # twice
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
    assert numbers == "cnn, 20 epochs: D = 10: +15.00 (2 seeds); ResNet-32, 30 epochs: D = 10: -10.00"


def test_recipes_of_one_backbone_with_equal_epochs_are_judged_together() -> None:
    balanced = pair(10, 0.5, 0.4, recipe="resnet32", epochs=200)
    tail = pair(128, 0.5, 0.4, "psc", recipe="resnet32-lt", epochs=200, data="cifar100-lt-0.01", table="table5")
    found = verdicts(balanced + tail)
    assert found[RENEWED][0] == found["Dynamic is ahead of learned prototypes on long tails"][0] == "holds"


def test_each_dimension_counts_once_whatever_its_number_of_seeds() -> None:
    many = [record for seed in range(8) for record in pair(10, 0.54, 0.5, seed=seed)]
    other = pair(25, 0.49, 0.5)
    verdict, numbers = verdicts(many + other)[RENEWED]
    assert verdict == "holds"
    assert numbers == "cnn, 20 epochs: D = 10: +4.00 (8 seeds), D = 25: -1.00"
    few = [record for seed in range(8) for record in pair(10, 0.51, 0.5, seed=seed)]
    assert verdicts(few + other)[RENEWED][0] == "within the noise"  # 0 in the mean; all runs together have +0.78


def test_several_seeds_have_less_noise() -> None:
    assert verdicts(pair(10, 0.51, 0.5))[RENEWED][0] == "within the noise"
    seeds = [record for seed in range(4) for record in pair(10, 0.51, 0.5, seed=seed)]
    assert verdicts(seeds)[RENEWED] == ("holds", "cnn, 20 epochs: D = 10: +1.00 (4 seeds)")


@pytest.mark.parametrize(
    ("leads", "verdict"),
    [
        ((20, 10, 0), "holds"),
        ((3, 20, 0), "does not hold here"),  # largest in the middle
        ((20, 0, 10), "holds"),  # what the others have beside each other is not asked
        ((20, 19, 0), "within the noise"),  # of two leads: 2.1
        ((0, -10, -10), "within the noise"),  # no lead at all
        ((-10, -20, -20), "does not hold here"),
        ((5, 5, 20), "does not hold here"),
    ],
)
def test_the_lead_at_the_smallest_dimension_is_compared_with_each_other(leads: tuple[int, ...], verdict: str) -> None:
    records = [
        record for dim, lead in zip((10, 25, 50), leads, strict=True) for record in pair(dim, 0.5 + lead / 100, 0.5)
    ]
    assert verdicts(records)["Renewing the assignment raises accuracy most at the smallest D"][0] == verdict


def test_where_the_lead_is_largest_needs_every_dimension() -> None:
    claim = "The lead of dynamic over learned prototypes is largest at the smallest D"
    small, large = pair(10, 0.5, 0.3, "psc"), pair(100, 0.6, 0.55, "psc")
    assert verdicts(small)[claim][0] == "not measured"
    assert verdicts(large + pair(50, 0.7, 0.5, "psc"))[claim][0] == "not measured"
    assert verdicts(small + large)[claim][0] == "not measured"
    between = pair(25, 0.5, 0.45, "psc") + pair(50, 0.5, 0.45, "psc")
    assert verdicts(small + between + large)[claim][0] == "holds"
    assert verdicts(pair(10, 0.5, 0.5, "psc") + large)[claim][0] == "does not hold here"


def test_half_the_dimension_is_compared_with_every_rival() -> None:
    claim = "Dynamic at D = 50 is ahead of psc and hpn at D = 100"
    ours, psc = made_up("dynamic", 50, 0.6), made_up("psc", 100, 0.5)
    assert verdicts([ours, psc])[claim][0] == "not measured"
    assert verdicts([ours, psc, made_up("hpn", 100, 0.55)])[claim][0] == "holds"
    assert verdicts([ours, psc, made_up("hpn", 100, 0.61)])[claim][0] == "within the noise"
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


def test_etf_may_be_level() -> None:
    claim = "On long tails dynamic is not behind ETF"
    tails = ("0.005", "0.01", "0.02")

    def found(*leads: float) -> tuple[str, str]:
        records: Records = []
        for tail, lead in zip(tails, leads, strict=False):
            records += pair(128, 0.4 + lead, 0.4, "etf", data=f"cifar100-lt-{tail}", table="table5")
        assert verdicts(records)["Dynamic is ahead of learned prototypes on long tails"] == ("not measured", "")
        return verdicts(records)[claim]

    level = "cnn, 20 epochs: cifar100-lt-0.005, D = 128: -0.50 (no difference seen)"
    assert found(-0.005) == ("holds", level)
    assert found(0.05) == ("holds", "cnn, 20 epochs: cifar100-lt-0.005, D = 128: +5.00")
    assert found(-0.02)[0] == found(0.05, -0.02)[0] == "does not hold here"
    assert found(-0.014, -0.014, -0.014)[0] == "does not hold here"  # three times


@pytest.mark.parametrize(
    ("test", "verdict", "numbers"),
    [
        (0.505, "holds", "+0.50 with 10 (no difference seen)"),
        (0.45, "holds", "-5.00 with 10"),
        (0.52, "does not hold here", "+2.00 with 10"),
    ],
)
def test_one_renewal_is_enough_unless_more_are_clearly_ahead(test: float, verdict: str, numbers: str) -> None:
    often = (("head.renewals_per_epoch", "10"),)
    records = [made_up("dynamic", 50, 0.5), made_up("dynamic", 50, test, table="figure3b", overrides=often)]
    assert verdicts(records)["One renewal an epoch is enough"] == (verdict, f"cnn, 20 epochs: {numbers}")


def test_table_8_compares_learned_prototypes_with_and_without_uniformity() -> None:
    records = [made_up("psc", 10, 0.4), made_up("psc-uniform", 10, 0.5, table="table8"), made_up("dynamic", 10, 0.45)]
    found = verdicts(records)
    raises = "L_uni beside the cross-entropy raises the accuracy of learned prototypes"
    behind = "Dynamic is ahead of learned prototypes with L_uni beside their cross-entropy (PSC*)"
    assert found[raises] == ("holds", "cnn, 20 epochs: D = 10: +10.00")
    assert found[behind] == ("does not hold here", "cnn, 20 epochs: D = 10: -5.00")


def test_pictures_of_both_sizes_speak_for_imagenet_200_and_are_named() -> None:
    records = pair(25, 0.5, 0.4, "psc", data="imagenet200-32px") + pair(25, 0.5, 0.4, "psc", data="imagenet200")
    claim = "Dynamic is ahead of learned prototypes on ImageNet-200, D = 25 (here also with pictures of 32 x 32)"
    numbers = "imagenet200, D = 25: +10.00, imagenet200-32px, D = 25: +10.00"
    assert verdicts(records)[claim] == ("holds", f"cnn, 20 epochs: {numbers}")


def test_the_page_says_of_how_many_seeds_a_lead_is() -> None:
    note = "The noise of 1.5 points is assumed (seeds differ by 0.4 points), not measured."
    assert table(pair(10, 0.5, 0.4), None, None).endswith(f"\n\n- Every lead is of one seed. {note}")
    several = table(pair(10, 0.5, 0.4) + pair(10, 0.5, 0.4, seed=1), None, None)
    assert several.endswith(f"\n\n- A lead without a number of seeds is of one seed. {note}")
    assert "seed" not in table([], None, None)


def test_claims_of_tables_that_were_not_at_hand_say_so_and_none_leans_on_another() -> None:
    for claim in CLAIMS:
        numbers = re.findall(r"\d+", claim.source) if claim.source.startswith("Table") else []
        unseen = [UNCHECKED in TABLES[f"table{n}"].notes for n in numbers if f"table{n}" in TABLES]
        assert claim.source.endswith(", not seen") == any(unseen) == all(unseen or [False]), claim.source
        assert not claim.sentence.startswith(("It ", "Its ", "The same")), claim.sentence


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
    claim = "The paper's descent makes opposite pairs of 100 prototypes, D = 50"
    assert verdicts([], table7=rows)[claim] == (verdict, f"{reached:.3f}; the paper's 0.01")


@pytest.mark.parametrize(("angle", "verdict"), [(90.9, "holds"), (80.0, "does not hold here")])
def test_the_average_angle_of_figure_2(angle: float, verdict: str) -> None:
    rows = [
        {"part": "sets", "what": "50 copies of u and 50 of -u", "mean_angle": angle, "distance": 0.0},
        {"part": "sets", "what": "fastproto, uniform", "mean_angle": 90.8, "distance": 0.05},
    ]
    assert verdicts([], figure2=rows)["The average angle hides degenerate prototypes"][0] == verdict
