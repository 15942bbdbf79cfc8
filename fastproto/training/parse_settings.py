"""A flat table of all settings, ``group.key``, with type, default and help; and the parser of their values.

The command line and configuration files parse values with the same :func:`from_text`: the same characters give the same
value. A setting of type str keeps its text, even where YAML would read a number or a bool (``1e-3``, ``on``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from fastproto.support.spelling import shown
from fastproto.training.setting_types import EXPECTED, Kind, hints_of, setting_type
from fastproto.training.settings_and_flags import TrainConfig

NULL = "null"
NAMES_OF_THE_RUN = ("out", "name", "resume")  # null is an ordinary text here: a run may have that name
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


@dataclass(frozen=True)
class Option:
    """One setting."""

    key: str
    kind: Kind
    optional: bool  # whether it may be None
    words: tuple[str, ...]  # texts beside numbers
    default: Any
    help: str

    @property
    def expected(self) -> str:
        nullable = self.optional and self.key not in NAMES_OF_THE_RUN
        return " or ".join((EXPECTED[self.kind], *self.words)) + (f", or {NULL}" if nullable else "")


def from_text(option: Option, text: str) -> Any:
    """Parse the value of a setting.

    Raises:
        ValueError: the text is not a value of this setting.
    """
    word = text.strip().lower()
    if option.optional and text == NULL and option.key not in NAMES_OF_THE_RUN:
        return None
    if word in option.words:
        return word
    try:
        if option.kind == "bool":
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[word]
        if option.kind == "int":
            return int(text)
        if option.kind == "float":
            return float(text)
        if option.kind in ("floats", "texts"):
            inside = re.fullmatch(r"\[(.*)\]", word)
            parts = [part.strip() for part in (inside[1] if inside else word).split(",") if part.strip()]
            return [float(part) if option.kind == "floats" else part.strip("\"'") for part in parts]
        if text.strip():
            return text
    except (ValueError, KeyError):
        pass
    raise ValueError(f"{option.key} is {shown(text)}; expected {option.expected}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optim": {"lr": 0.1}}`` as ``{"optim.lr": 0.1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`, for settings: groups are one level deep."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        group, dot, name = key.partition(".")
        if dot:
            nested.setdefault(group, {})[name] = value
        else:
            nested[key] = value
    return nested


def _table() -> dict[str, Option]:
    found: dict[str, Option] = {}

    def add(cls: type, prefix: str) -> None:
        types, helps = hints_of(cls), _argument_helps(cls)
        for field in fields(cls):
            if is_dataclass(types[field.name]):
                add(types[field.name], f"{field.name}.")
                continue
            kind = setting_type(types[field.name])
            default = field.default if field.default_factory is MISSING else field.default_factory()
            key = prefix + field.name
            found[key] = Option(key, kind.kind, kind.optional, kind.words, default, helps.get(field.name, ""))

    add(TrainConfig, "")
    return found


def _argument_helps(cls: type) -> dict[str, str]:
    """The help of each field, from the ``Args:`` section of the class docstring."""
    text = inspect.getdoc(cls) or ""
    parts = re.split(r"\n    (\w+): ", "\n" + text.partition("Args:\n")[2])
    return {name: " ".join(help.split()) for name, help in zip(parts[1::2], parts[2::2], strict=True)}


OPTIONS = _table()
GROUPS = tuple(dict.fromkeys(key.partition(".")[0] for key in OPTIONS if "." in key))
