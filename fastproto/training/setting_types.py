"""Types of settings, read from the annotations of the configuration classes; conversion of values to plain ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastproto.support.spelling import nearest

Kind = Literal["bool", "int", "float", "str", "floats", "texts"]
EXPECTED: dict[Kind, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "floats": "numbers such as [0.4, 0.8]",
    "texts": "texts such as [csv, tensorboard]",
}
_KINDS: dict[object, Kind] = {bool: "bool", int: "int", float: "float", str: "str", list[float]: "floats"}
Config = TypeVar("Config")


@dataclass(frozen=True)
class SettingType:
    """The values that a setting allows."""

    kind: Kind
    optional: bool = False  # whether it may be None
    choices: tuple[str, ...] = ()  # allowed texts, of each item in a list; empty: any
    words: tuple[str, ...] = ()  # texts that are allowed beside numbers

    def allows(self, value: object) -> bool:
        """Whether the value is of this type; choices are not checked."""
        return (value is None and self.optional) or self.is_word(value) or _is_a(value, self.kind)

    def is_word(self, value: object) -> bool:
        return isinstance(value, str) and value in self.words

    @property
    def expected(self) -> str:
        return " or ".join((EXPECTED[self.kind], *self.words))

    def allows_choice(self, value: Any) -> bool:
        """Whether a value of this type is one of the choices, or a list of some."""
        return not self.choices or all(one in self.choices for one in (value if self.kind == "texts" else [value]))

    @property
    def one_of(self) -> str:
        return "some of" if self.kind == "texts" else "one of"


def setting_type(hint: object) -> SettingType:
    """The type of ``int | None``, ``Literal["mean", "sum"]``, ``float | Literal["norm"]`` or a list of literals."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    optional = type(None) in parts
    (inner,) = [part for part in parts if get_origin(part) is list] or [None]
    if inner is not None and get_origin(get_args(inner)[0]) is Literal:
        return SettingType("texts", optional, get_args(get_args(inner)[0]))
    texts = tuple(text for part in parts if get_origin(part) is Literal for text in get_args(part))
    kinds = [_KINDS[part] for part in parts if part in _KINDS]
    return SettingType(kinds[0], optional, words=texts) if kinds else SettingType("str", optional, texts)


def hints_of(cls: type) -> dict[str, Any]:
    """The resolved annotations of a class, such as ``int`` or ``int | None``, by field."""
    return get_type_hints(cls)


def settings_of(config: object, prefix: str = "") -> Iterator[tuple[str, SettingType, object]]:
    """Flat key (such as ``optim.lr``), type and value of every setting.

    Raises:
        ValueError: a group that is of another class.
    """
    for name, hint in hints_of(type(config)).items():
        value = getattr(config, name)
        if isinstance(hint, type) and is_dataclass(hint):
            if not isinstance(value, hint):
                raise ValueError(f"{prefix}{name} is {value!r}; expected {hint.__name__}")
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name, setting_type(hint), value


def plain(value: object) -> object:
    """Convert to values that YAML and a checkpoint can hold: paths to text, NumPy numbers to Python numbers."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return str(value)


def from_mapping(cls: type[Config], values: Mapping[str, object], prefix: str = "") -> Config:
    """Build a configuration from its values.

    Raises:
        ValueError: an unknown key (the message names the nearest known one), or a group that is not a mapping.
    """
    known = hints_of(cls)
    filled: dict[str, object] = {}
    for key, value in values.items():
        if key not in known:
            near = nearest(str(key), known)
            hint = f"did you mean {prefix}{near}?" if near else f"known: {', '.join(prefix + k for k in known)}"
            raise ValueError(f"unknown configuration key {prefix}{key}; {hint}")
        if is_dataclass(known[key]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{key} is {value!r}; expected a group of settings such as {prefix}{key}.name")
            value = from_mapping(known[key], value, f"{prefix}{key}.")
        filled[key] = value
    return cls(**filled)


def _is_a(value: object, kind: Kind) -> bool:
    match kind:
        case "floats":
            return isinstance(value, list | tuple) and all(_is_a(part, "float") for part in value)
        case "texts":
            return isinstance(value, list | tuple) and all(_is_a(part, "str") for part in value)
        case "str":
            return isinstance(value, str | os.PathLike) and str(value).strip() != "" and "\0" not in str(value)
        case "bool":
            return isinstance(value, bool)
        case _:
            return isinstance(value, Integral if kind == "int" else Real) and not isinstance(value, bool)
