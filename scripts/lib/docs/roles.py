"""Turns roles in docstrings, such as ``:meth:`reassign` ``, into links to the API reference; a griffe extension."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")


BRACKETS = re.compile(r"(\w)\[(\w+)\](?= ?\[)")
"""``W[A] [C, D]``, whose second brackets Markdown would take for the target of a link."""


class Roles(griffe.Extension):
    """Replaces the roles of every docstring of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_kwargs: Any) -> None:
        replace_roles(pkg)


def replace_roles(owner: griffe.Module | griffe.Class | griffe.Function | griffe.Attribute) -> None:
    """Replaces the roles in the docstrings of an object and its members, not in those of aliases."""
    if owner.docstring is not None:
        text = BRACKETS.sub(r"\1\[\2\]", owner.docstring.value)
        owner.docstring.value = ROLE.sub(lambda role: link(owner, role[1]), text)
    for member in owner.members.values():
        if isinstance(member, (griffe.Module, griffe.Class, griffe.Function, griffe.Attribute)):
            replace_roles(member)


def link(owner: griffe.Object, name: str) -> str:
    """A link to the page of the name; the name alone if no page has it."""
    first, _, rest = name.partition(".")
    try:
        path = name if first == "fastproto" else ".".join(filter(None, [owner.resolve(first), rest]))
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
