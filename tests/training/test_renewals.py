"""When the assignment is renewed: the schedule, early alignments, and a run that goes on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from fastproto.training.renewals import Schedule

from .helpers import rows, trained_and_resumed


@pytest.mark.parametrize("rate", [0.0, 0.37, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("steps", [7, 10])
def test_renewals_fall_evenly(rate: float, steps: int) -> None:
    schedule = Schedule(rate)
    due = [step for step in range(100 * steps) if schedule.due(step, steps)]
    assert 0 not in due
    assert abs(len(due) - rate * 100) <= 1 + rate
    gaps = {b - a for a, b in itertools.pairwise(due)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    if rate == 1.0:
        assert due == list(range(steps, 100 * steps, steps))


@pytest.mark.parametrize("steps", [7, 10])
def test_early_renewals_come_more_often(steps: int) -> None:
    schedule = Schedule(per_epoch=1.0, early_epochs=2.0, early_per_epoch=3.0)
    due = [step for step in range(6 * steps + 1) if schedule.due(step, steps)]
    early = [step for step in due if schedule.early(step, steps)]
    assert len(early) == 6 and early[-1] == 2 * steps
    assert due[6:] == [3 * steps, 4 * steps, 5 * steps, 6 * steps]
    gaps = [b - a for a, b in itertools.pairwise([0, *early])]
    assert max(gaps) - min(gaps) <= 1


def test_without_early_epochs_the_early_rate_means_nothing() -> None:
    plain, odd = Schedule(1.7), Schedule(1.7, 0.0, 50.0)
    assert [plain.due(step, 13) for step in range(200)] == [odd.due(step, 13) for step in range(200)]
    assert not any(odd.early(step, 13) for step in range(1, 200))


def test_early_alignments_turn_prototypes_and_a_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    changes: dict[str, Any] = {
        "optim__epochs": 3,
        "head__dim": 3,
        "head__initial_assignment": "aligned",
        "head__early_epochs": 2.0,
        "head__early_renewals_per_epoch": 2.0,
        "head__early_alignment": True,
    }
    whole = trained_and_resumed(tmp_path, monkeypatch, **changes)
    turned = [row["step"] for row in rows(whole) if "assignment/turns" in row]
    assert turned[0] == "0" and len(turned) == 5  # the first, and two in each of two epochs
    renewed = [row["step"] for row in rows(whole) if "assignment/changed" in row]
    assert renewed == turned[1:]  # the renewal at the end of the third epoch has no step to come before
