"""numba's ``njit`` with a cache on disk whose failures cost only time.

Where a cache file is missing, damaged, or of another version or processor, the function is compiled and the file
replaced; where no file can be written, each process compiles for itself. A digest protects the machine code: loading
damaged code would crash the process.
"""
# some releases of numba have types, for a part of what is used here, and some have none
# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

from fastproto.support.cancellation import check_stop

REORDERED = {"nnan", "nsz"}
"""``fastmath`` where NaN and the sign of zero do not matter: a minimum becomes vector instructions."""


class _DamagedError(Exception):
    """A cache file does not hold what was written."""


@cache
def library_stamp() -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of each file whose functions and constants are compiled into functions of other files."""
    folder, support = Path(__file__).parent, Path(__file__).parents[1] / "support"
    files = [*sorted(folder.glob("*.py")), *sorted(support.glob("*.py"))]
    found = [(file.name, file.stat()) for file in files]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


class _SealedResults(CompileResultCacheImpl):
    """Compiled code as bytes, with their digest and their origin."""

    def reduce(self, data: Any) -> Any:
        content = dumps(super().reduce(data))
        return self._origin(data.codegen), hashlib.sha256(content).digest(), content

    def rebuild(self, target_context: Any, reduced_data: Any) -> Any:
        origin, digest, content = reduced_data
        if origin != self._origin(target_context.codegen()) or digest != hashlib.sha256(content).digest():
            raise _DamagedError
        return super().rebuild(target_context, pickle.loads(content))

    def _origin(self, codegen: Any) -> Any:
        """numba's version, the processor, the function, its source, and the files whose code it may contain."""
        own = self.filename_base, self.locator.get_source_stamp()
        return numba.__version__, codegen.magic_tuple(), *own, library_stamp()


class _HarmlessCache(FunctionCache):
    """numba's cache of a function; if anything goes wrong with its files, the function is compiled."""

    _impl_class = _SealedResults

    def load_overload(self, sig: object, target_context: Any) -> Any:
        check_stop()  # a cache miss compiles, which can take seconds
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # unpickling a damaged file can raise anything
            return None
        # two processes that compile at once may write two signatures to one file
        if found is not None and tuple(found.signature.args) != tuple(sigutils.normalize_signature(sig)[0]):
            return None
        return found

    def save_overload(self, sig: object, data: object) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            return  # disk full, no permission, or a folder in the file's place
        except Exception:  # a damaged index: write a new one
            self._save_anew(sig, data)

    def _save_anew(self, sig: object, data: object) -> None:
        try:
            self.flush()
            super().save_overload(sig, data)
        except OSError:
            return


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: ``numba.njit(nogil=True, **options)``, kept on disk where numba finds a folder that it may write to.

    Decorating compiles nothing; the first call does. A function with ``inline="always"`` is part of its callers and has
    no file of its own.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(function, nogil=True, **options)
        # with NUMBA_DISABLE_JIT the dispatcher is the function itself
        own_file = options.get("inline") != "always" and dispatcher is not function
        if own_file:
            with suppress(RuntimeError, OSError):  # no folder, or no source file
                dispatcher._cache = _HarmlessCache(function)
        return dispatcher

    return decorate
