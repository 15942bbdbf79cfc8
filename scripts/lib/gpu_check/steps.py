"""The steps in the order of the report: the file of each, and its time limit."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

Entries = Iterator[tuple[str, object]]
"""A step yields names and JSON values; they are kept even if the step fails later."""


class Step(NamedTuple):
    file: str  # in this folder; its function of the step's name is the step
    limit: float  # in seconds, beside that of the whole run
    side_by_side: bool = False  # without timings, so that it may run in parallel to others


STEPS = {
    "machine": Step("machine", 60, True),
    "tests": Step("tests_and_sanitizer", 100, True),
    "sanitizer": Step("tests_and_sanitizer", 90, True),
    "accuracy": Step("accuracy", 80, True),
    "large": Step("accuracy", 60, True),
    "determinism": Step("accuracy", 60, True),
    "variants": Step("variants", 90, True),
    "functions": Step("functions", 90),
    "speed": Step("pairs", 100),
    "peers": Step("pairs", 90),
    "head": Step("head", 60),
    "training": Step("head", 60),
    "network": Step("head", 40),
    "score_passes": Step("pairs", 70),
    "assignment": Step("assignment", 100),
    "million": Step("pairs", 40),
    "prototypes": Step("prototypes", 70),
    "tune": Step("pairs", 340),
}
HIDDEN = {"exercise": Step("tests_and_sanitizer", 200)}  # run by the step ``sanitizer``


def load(name: str) -> Callable[[bool], Entries]:
    """The function of a step, imported late: a missing import fails no other step."""
    module = importlib.import_module(f"lib.gpu_check.{(STEPS | HIDDEN)[name].file}")
    return cast("Callable[[bool], Entries]", getattr(module, name))
