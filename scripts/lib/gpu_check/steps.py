"""The steps, in the order of the report: where each is, and how long it may take."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

Entries = Iterator[tuple[str, object]]
"""A step yields names and values, which JSON can hold: what it has yielded is kept even if it fails later."""


class Step(NamedTuple):
    file: str  # in this folder: the step is its function of the step's name
    limit: float  # in seconds
    side_by_side: bool = False  # it has no times in it, so it may run beside others


STEPS = {
    "machine": Step("machine", 60, True),
    "tests": Step("tests_and_sanitizer", 240, True),
    "sanitizer": Step("tests_and_sanitizer", 200, True),
    "accuracy": Step("accuracy", 150, True),
    "determinism": Step("accuracy", 60, True),
    "scipy": Step("assignment", 100, True),
    "functions": Step("functions", 90),
    "speed": Step("pairs", 100),
    "peers": Step("pairs", 90),
    "head": Step("head", 60),
    "training": Step("head", 60),
    "sweeps": Step("pairs", 70),
    "assignment": Step("assignment", 100),
    "million": Step("pairs", 40),
    "prototypes": Step("prototypes", 70),
    "tune": Step("pairs", 400),
}
HIDDEN = {"exercise": Step("tests_and_sanitizer", 200)}  # run by the step ``sanitizer``


def load(name: str) -> Callable[[bool], Entries]:
    """The function of a step. Only now are its imports needed: one that is missing stops no other step."""
    module = importlib.import_module(f"lib.gpu_check.{(STEPS | HIDDEN)[name].file}")
    return cast("Callable[[bool], Entries]", getattr(module, name))
