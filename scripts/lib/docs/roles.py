"""Roles of docstrings, such as ``:meth:`reassign` ``, as links to the API reference; loaded by the site's generator."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")


BRACKETS = re.compile(r"(\w)\[(\w+)\](?= ?\[)")
"""``W[A] [C, D]``: Markdown would read the second pair as the target of a link."""


class Roles(griffe.Extension):
    """Replaces the roles of every docstring of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_kwargs: Any) -> None:
        replace_roles(pkg)


def replace_roles(owner: griffe.Module | griffe.Class | griffe.Function | griffe.Attribute) -> None:
    """The docstrings of an object and of its members; those behind an alias are replaced where they are written."""
    if owner.docstring is not None:
        text = BRACKETS.sub(r"\1\[\2\]", owner.docstring.value)
        owner.docstring.value = ROLE.sub(lambda role: link(owner, role[1]), text)
    for member in owner.members.values():
        if isinstance(member, (griffe.Module, griffe.Class, griffe.Function, griffe.Attribute)):
            replace_roles(member)


def link(owner: griffe.Object, name: str) -> str:
    """A link to the page that has the name; where no page has it, the name alone is shown."""
    first, _, rest = name.partition(".")
    try:
        path = name if first == "fastproto" else ".".join(filter(None, [owner.resolve(first), rest]))
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
