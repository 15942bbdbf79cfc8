"""classes.csv of a run folder: training samples, test samples and test accuracy of each class."""

from __future__ import annotations

import csv

import pytest

from fastproto.data import load_data
from fastproto.training import RunResult


def test_classes_add_up_to_the_test(finished: RunResult) -> None:
    with (finished.folder / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    data = load_data("digits")
    assert [row["class"] for row in rows] == list(data.class_names)
    assert [int(row["label"]) for row in rows] == list(range(10))
    for part, column in ((data.train, "train"), (data.test, "test")):
        assert [int(row[column]) for row in rows] == part.labels.bincount(minlength=10).tolist()
    hits = sum(int(row["test"]) * float(row["accuracy_top1"]) for row in rows)
    assert hits / len(data.test) == pytest.approx(finished.test_accuracy)
    assert len({row["accuracy_top1"] for row in rows}) > 1
