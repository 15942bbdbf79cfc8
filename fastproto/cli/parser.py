"""The argument parser of the three commands: errors are one sentence each, raised and not printed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from fastproto.support.spelling import nearest, shown

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"  # put by editors in place of - and --


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises ValueError; for an unknown option the message names the nearest known one."""

    def error(self, message: str) -> NoReturn:
        missing = re.fullmatch(r"argument (\S+): expected (?:one|at least one) argument", message)
        if missing:
            option = missing[1].partition("/")[0]
            raise ValueError(
                f"{option} has no value; expected {option} VALUE, or {option}=VALUE where the value begins with -"
            )
        wrong = re.fullmatch(r"argument (\S+): invalid (int|float) value: (.*)", message, re.DOTALL)
        if wrong:
            expected = "a whole number" if wrong[2] == "int" else "a number"
            raise ValueError(f"{wrong[1].partition('/')[0]} is {wrong[3]}; expected {expected}")
        raise ValueError(f"{message.removeprefix('argument ')}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but raise ValueError for an unknown argument."""
        found, unknown = self.parse_known_args(join_negative_numbers(args), namespace)
        if unknown:
            raise ValueError(self.unknown(unknown[0]))
        return found

    def unknown(self, word: str) -> str:
        """The error message for an unknown argument."""
        if any(dash in word[:2] for dash in DASHES):
            return f"{shown(word)} begins with a dash that is not the ASCII hyphen; type the option with --"
        name = word.partition("=")[0]
        if not name.startswith("-") or name == "--":
            return f"unknown argument {shown(word)}; expected options such as --NAME VALUE: see {self.prog} --help"
        near = self.nearest(name)
        return f"unknown option {name}" + (f"; did you mean {near}?" if near else f"; see {self.prog} --help")

    def nearest(self, name: str) -> str | None:
        """The known option that an unknown one may stand for."""
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        return nearest("--" + name.lstrip("-").replace("_", "-"), known)


def join_negative_numbers(args: Sequence[str]) -> list[str]:
    """Join ``--lr -1e-3`` to ``--lr=-1e-3``: argparse would read -1e-3, -inf and -nan as options."""
    joined: list[str] = []
    for arg in args:
        before = joined[-1] if joined else ""
        if re.fullmatch(r"--[^=]+", before) and arg.startswith("-") and _is_number(arg):
            joined[-1] = f"{before}={arg}"
        else:
            joined.append(arg)
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
