"""``scripts/reproduce integrations`` on a tiny budget, and the tables of its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib.integrations.digits import Budget
from lib.integrations.parity import WAYS, Way, by_integration, by_trainer, integrations
from lib.integrations.tables import MLP, ONLY_LONGER, SHOWN, TIMM, TITLES, accuracy_table, longer_table
from lib.integrations.trainings import plain

TINY = Budget(epochs=1, lr=1e-2)


def cells(text: str) -> list[list[str]]:
    """Of the rows of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def absent(seed: int) -> float:
    raise AssertionError("its package is not installed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of Lightning
def test_only_what_is_missing_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "integrations.json"
    ways = (
        Way("trainer", "lightning", MLP, 1, by_trainer(MLP, TINY)),
        Way("plain", "torch", MLP, 2, by_integration(plain, budget=TINY)),
        Way("pml", "no_such_package", MLP, 1, absent),
    )
    rows = integrations(out, ways)
    assert json.loads(out.read_text()) == rows
    assert [(row["integration"], row["seed"]) for row in rows] == [("trainer", 0), ("plain", 0), ("plain", 1)]
    assert all(0.5 < row["test"] < 1 for row in rows)  # without training 0.1
    assert [list(row["versions"]) for row in rows[:2]] == [["python", "torch", "lightning"], ["python", "torch"]]
    assert "mlp, pml: no_such_package is not installed" in capsys.readouterr().out
    out.write_text(json.dumps(rows[:2]))
    again = integrations(out, ways)
    assert again == rows, "the same seed gives the same accuracy"
    assert capsys.readouterr().out.count("seed") == 2  # a line for the run, and the head of a table


def made_up(name: str, *values: float, backbone: str = MLP) -> list[dict[str, Any]]:
    facts = {"integration": name, "backbone": backbone, "versions": {"torch": "2", name: "1"}}
    facts |= {"device": "a CPU", "commit": "0" * 40}
    return [{**facts, "seed": seed, "test": value} for seed, value in enumerate(values)]


def test_the_mean_of_three_seeds_is_compared_with_the_lowest_and_highest_of_the_trainer() -> None:
    rows = [
        *made_up("trainer", 0.97, 0.98, 0.99, 0.5),
        *made_up("plain", 0.98, 0.98, 1.0),
        *made_up("dl2pa", 0.96, 0.96, 0.97, 1.0),
        *made_up("pml", 1.0, 1.0, 1.0),
        *made_up("trainer", 0.5, 0.5, 0.5, backbone=TIMM),
        *made_up("timm", 0.5, 0.5, 0.5, backbone=TIMM),
    ]
    text = accuracy_table(rows)
    shown = {line[0]: line[1:] for line in cells(text)}
    assert list(shown) == [title for way, title in TITLES.items() if way != ONLY_LONGER] and SHOWN == 3
    assert shown[TITLES[MLP, "trainer"]] == ["98.00", "97.00", "99.00", ""]
    assert shown[TITLES[MLP, "plain"]] == ["98.67", "98.00", "100.00", "yes"]
    assert shown[TITLES[MLP, "dl2pa"]] == ["96.33", "96.00", "97.00", "0.67 below"]
    assert shown[TITLES[MLP, "pml"]] == ["100.00", "100.00", "100.00", "1.00 above"]
    assert shown[TITLES[MLP, "lightning"]] == ["not measured", "", "", ""]
    assert shown[TITLES[TIMM, "timm"]] == ["50.00", "50.00", "50.00", "yes"]
    assert "torch 2, trainer 1, plain 1, dl2pa 1, pml 1, timm 1; a CPU; commit 000000000000." in text


def test_longer_comparisons_are_at_equal_seeds() -> None:
    rows = [*made_up("trainer", 0.97, 0.98, 0.99, 0.98), *made_up("dl2pa", 0.96, 0.98, 0.98, 0.98)]
    assert cells(longer_table([*rows, *made_up("pml", 0.9, 0.9, 0.9)])) == [
        [TITLES[MLP, "trainer"], "4", "98.00\xa0±\xa00.82", ""],
        [TITLES[MLP, "dl2pa"], "4", "97.50\xa0±\xa01.00", "-0.50\xa0±\xa00.29"],
    ]


def test_every_way_has_a_title() -> None:
    assert [(way.backbone, way.name) for way in WAYS] == list(TITLES)
