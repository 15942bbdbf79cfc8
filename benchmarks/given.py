"""The folders that a run was given: files that fastproto does not bring along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Given:
    """None: rows that need the folder are not measured."""

    cifar100: Path | None = None
    published: Path | None = None


GIVEN = Given()
