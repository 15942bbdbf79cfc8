"""Reads and writes configuration files: YAML in which the type of a setting decides how its value is read.

PyYAML only composes the tree of nodes. It constructs no objects, so that tags have no effect.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from fastproto.support.spelling import nearest, shown
from fastproto.support.text_files import read_text
from fastproto.training.parse_settings import GROUPS, OPTIONS, Option, from_text
from fastproto.training.settings_and_flags import TrainConfig

AnyPath = str | os.PathLike[str]
LARGEST_FILE = 1 << 16  # bytes
DEPTH = 8  # largest nesting of groups and lists; settings need 2
_NULLS = ("", "~", "null", "Null", "NULL")
_STANDARD = "tag:yaml.org,2002:"
_SCALARS = frozenset(_STANDARD + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value"))


def run_of(checkpoint: AnyPath) -> Path:
    """The run folder RUN of a path RUN or RUN/checkpoints/NAME.ckpt."""
    path = Path(checkpoint)
    if path.is_dir():
        return path
    return path.parent.parent if len(path.parts) > 2 else path.absolute().parent.parent


def config_of_run(resume: str) -> dict[str, Any]:
    """Read the settings of a run, given its folder or one of its checkpoints.

    Raises:
        FileNotFoundError: no such folder or checkpoint, or a checkpoint outside a run folder.
        ValueError: as :func:`read_config`.
    """
    config = run_of(resume) / "config.yaml"
    if not Path(resume).exists() or not config.is_file():
        raise FileNotFoundError(
            f"no run to resume at {resume}; expected a run folder of fastproto-train or a checkpoint"
        )
    return read_config(config)


def config_text(config: TrainConfig) -> str:
    """The text of ``config.yaml``: every setting, readable by :func:`read_config` and by any YAML reader."""
    yaml, values = _yaml(), config.to_dict()
    text = str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    # PyYAML reads an unescaped U+0085 as a line end: a text with one is escaped as a whole.
    return text if "\x85" not in text else str(yaml.safe_dump(values, sort_keys=False))


def read_config(path: AnyPath) -> dict[str, Any]:
    """Read the settings in a file, by their flat keys such as ``optim.lr``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, an empty file, text that is not UTF-8 or not YAML, an unknown or repeated key, a value of
            another type. The message names the file and, if known, the line.
    """
    found: dict[str, Any] = {}
    _read_group(read_mapping(path, "optim: {lr: 0.01}"), "", found, {}, path)
    return found


def read_mapping(path: AnyPath, example: str) -> Any:
    """The root node of a file, which is a mapping; ``example`` completes the messages.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_config`, but for keys and values, which are not looked at.
    """
    yaml = _yaml()
    if not Path(path).exists():
        raise FileNotFoundError(f"no configuration file {path}; expected a YAML file")
    text = read_text(path, LARGEST_FILE, "a configuration file, such as config.yaml of a run")
    try:
        _check_depth(text, path)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{path}{where}: {error.problem}; expected YAML such as '{example}'") from error
    except yaml.YAMLError as error:  # characters that YAML forbids
        raise ValueError(f"{path} is not YAML ({' '.join(str(error).split())}); expected a text file") from error
    if root is None:
        raise ValueError(f"{path} is empty; expected settings such as '{example}'")
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path} holds {_kind(root)}; expected settings such as '{example}'")
    return root


def _yaml() -> Any:
    try:
        return import_module("yaml")
    except ImportError as error:
        raise ImportError("configuration files need PyYAML: pip install 'fastproto[train]'") from error


def _check_depth(text: str, path: AnyPath) -> None:
    """Raise ValueError for deep nesting: PyYAML composes recursively, in time quadratic in the depth."""
    yaml, depth = _yaml(), 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"{path} is nested too deeply; expected settings in groups, one level deep")


def _read_group(
    group: Any, prefix: str, found: dict[str, Any], lines: dict[str, int], path: str | os.PathLike[str]
) -> None:
    """Read a mapping node into ``found``; ``lines`` maps each key to its line."""
    yaml = _yaml()
    for name, value in group.value:
        line = name.start_mark.line + 1
        here = f"{path} line {line}"
        if not isinstance(name, yaml.ScalarNode):
            raise ValueError(f"{here}: a key is {_kind(name)}; expected the name of a setting")
        key = prefix + name.value
        if key in lines:
            raise ValueError(f"{here}: {key} is repeated, first in line {lines[key]}; expected each key once")
        lines[key] = line
        if key in GROUPS and isinstance(value, yaml.MappingNode):
            _read_group(value, f"{key}.", found, lines, path)
        elif key in GROUPS and value.tag == _STANDARD + "null" and value.value in _NULLS:
            continue  # an empty group
        elif key in GROUPS:
            raise ValueError(f"{here}: {key} is {_kind(value)}; expected a group of settings such as {key}.name")
        elif key not in OPTIONS:
            near = nearest(key, OPTIONS)
            hint = f"did you mean {near}?" if near else "fastproto-train --help lists them all"
            raise ValueError(f"{here}: unknown configuration key {shown(key)}; {hint}")
        else:
            try:
                found[key] = _value(OPTIONS[key], value)
            except ValueError as error:
                raise ValueError(f"{here}: {error}") from error


def _value(option: Option, node: Any) -> Any:
    yaml = _yaml()
    if isinstance(node, yaml.SequenceNode) and option.kind in ("floats", "texts"):
        return [part for item in node.value for part in _values_of_item(option, item)]
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{option.key} is {_kind(node)}; expected {option.expected}")
    if node.tag not in _SCALARS:
        raise ValueError(f"{option.key} has the tag {node.tag.removeprefix(_STANDARD)!r}; expected {option.expected}")
    if is_null(node):
        if option.optional:
            return None
        raise ValueError(f"{option.key} is null; expected {option.expected}")
    if option.kind == "str" and node.value.strip():
        return node.value  # unchanged; also from quoted and block scalars
    return from_text(option, node.value)


def _values_of_item(option: Option, node: Any) -> list[float]:
    """A list within a list is an error: aliases could make a short file very long."""
    if not isinstance(node, _yaml().ScalarNode):
        raise ValueError(f"{option.key} has an item that is not a number; expected {option.expected}")
    values: list[float] = _value(option, node)
    return values


def is_null(node: Any) -> bool:
    """Whether a node is ``~``, ``null`` or empty, unquoted."""
    return isinstance(node, _yaml().ScalarNode) and node.style is None and node.value in _NULLS


def _kind(node: Any) -> str:
    yaml = _yaml()
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else f"the text {shown(node.value)}"
