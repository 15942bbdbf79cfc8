"""The strip of the sphere: what each panel holds, and how lines are cut at the rim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib import renewals

SAVED = {
    "class_means": np.array([2 * np.eye(3), np.eye(3), np.roll(np.eye(3), 1, axis=0)]),
    "prototypes": np.array([np.eye(3)] * 3),
    "assignment": np.array([[1, 0, 2], [0, 1, 2], [2, 0, 1]]),
}


def test_moments_are_before_and_after_the_first_renewal_and_the_last_state() -> None:
    before, after, last = renewals.choose_moments(SAVED)
    np.testing.assert_allclose(before.angles(), [90, 90, 0])
    np.testing.assert_allclose(after.angles(), [0, 0, 0])
    np.testing.assert_array_equal(after.means, before.means)
    assert list(after.moved) == [True, True, False] and "2 of 3 labels moved" in after.title
    np.testing.assert_allclose(last.angles(), [0, 0, 0])
    assert "After 2 renewals" in last.title and not last.moved.any() and not before.moved.any()


def test_a_run_of_one_renewal_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 2 renewals"):
        renewals.choose_moments({name: array[:1] for name, array in SAVED.items()})


def test_an_arc_is_a_great_circle_and_ends_at_the_rim() -> None:
    x, y = renewals.arc(np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), points=3)
    np.testing.assert_allclose([x, y], [[1, 0.5**0.5, 0], [0, 0, 0]], atol=1e-12)
    x, y = renewals.arc(np.array([0.6, 0, 0.8]), np.array([0.6, 0, -0.8]), points=5)
    assert list(np.isnan(x)) == list(np.isnan(y)) == [False, False, False, True, True]


def test_the_strip_has_a_panel_for_each_moment(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    renewals.draw(renewals.choose_moments(SAVED), "$_%", tmp_path / "new" / "strip.png")
    height, width = image.imread(tmp_path / "new" / "strip.png").shape[:2]
    assert width > 2 * height > 400
