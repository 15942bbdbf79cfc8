"""Compiled functions give the right values whatever lies in the folder of their cache."""

from __future__ import annotations

import ast
import importlib.util
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fastproto.cpu.numba_cache import library_stamp

SOURCE = """
from fastproto.cpu.numba_cache import compiled

@compiled(inline="always")
def twice(x):
    return x + x

@compiled()
def multiple(x):
    return twice(x) + {one} * x
"""


def load(file: Path) -> ModuleType:
    """The module anew, as another process would."""
    spec = importlib.util.spec_from_file_location("some_compiled", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(file: Path, *, hits: int | None = None, times: int = 3) -> None:
    """Both signatures give the right value, of this type; ``hits`` of them came from the disk."""
    multiple = load(file).multiple
    assert multiple(14) == 14 * times and multiple(0.25) == 0.25 * times
    assert isinstance(multiple(14), int) and isinstance(multiple(0.25), float)
    if hits is not None:
        assert sum(multiple.stats.cache_hits.values()) == hits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A module whose functions are in the cache; it lies beside it."""
    path = tmp_path / "some_compiled.py"
    path.write_text(SOURCE.format(one=1))
    check(path, hits=0)
    check(path, hits=2)
    assert len(cache_files(path, "nbi")) == 1 and len(cache_files(path, "nbc")) == 2
    return path


def cache_files(file: Path, suffix: str) -> list[Path]:
    return sorted((file.parent / "__pycache__").glob(f"*.{suffix}"))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "garbage": lambda content: random.Random(0).randbytes(len(content)),
    "one byte less": lambda content: content[:-1],
    "another pickle": lambda content: b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_compiled_anew_and_replaced(file: Path, suffix: str, damage: str) -> None:
    for damaged in cache_files(file, suffix):
        damaged.write_bytes(DAMAGES[damage](damaged.read_bytes()))
    check(file, hits=0)
    check(file, hits=2)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_flipped_bit_anywhere_never_reaches_the_processor(file: Path, suffix: str) -> None:
    good = {path: path.read_bytes() for kind in ("nbi", "nbc") for path in cache_files(file, kind)}
    damaged = cache_files(file, suffix)[0]
    places = random.Random(0).sample(range(len(good[damaged])), 6)
    for at in places:
        for path, content in good.items():
            path.write_bytes(content)
        damaged.write_bytes(flipped(good[damaged], at))
        check(file)


def test_code_of_another_signature_or_source_is_not_taken(file: Path) -> None:
    first, second = cache_files(file, "nbc")
    old = first.read_bytes(), second.read_bytes()
    first.write_bytes(old[1])
    second.write_bytes(old[0])
    check(file, hits=0)
    file.write_text(SOURCE.format(one=2))
    check(file, hits=0, times=4)
    first.write_bytes(old[0])  # what a full disk leaves: a new index, and the data of the old source
    second.write_bytes(old[1])
    check(file, hits=0, times=4)
    check(file, hits=2, times=4)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_folder_or_a_dangling_link_in_the_place_of_a_file(file: Path, suffix: str) -> None:
    for path in cache_files(file, suffix):
        path.unlink()
        path.mkdir()
    check(file, hits=0)
    for path in cache_files(file, suffix):
        path.rmdir()
        path.symlink_to(file.parent / "nothing" / "here")
    check(file, hits=0)
    assert not list((file.parent / "__pycache__").glob("*.tmp.*"))


def test_a_full_disk(file: Path) -> None:
    shutil.rmtree(file.parent / "__pycache__")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # no file can grow
    try:
        check(file, hits=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not cache_files(file, "nbc")
    check(file)
    check(file, hits=2)


def test_no_folder_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some_compiled.py"
    path.write_text(SOURCE.format(one=1))
    (tmp_path / "__pycache__").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # no folder either
    check(path, hits=0)
    check(path, hits=0)


def test_every_compiled_function_of_the_package_has_such_a_cache(root: Path) -> None:
    by_name = {
        file.relative_to(root).as_posix()
        for file in (root / "fastproto").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.alias) and node.name in ("njit", "jit", "vectorize", "guvectorize", "numba"))
    }
    assert by_name == {"fastproto/cpu/numba_cache.py"}


def test_what_compiled_code_contains_of_other_files_is_part_of_its_stamp(root: Path) -> None:
    """Functions and constants become part of the machine code: a change in their files makes it stale."""
    stamped = {name for name, _, _ in library_stamp()}
    seen = 0
    for file in sorted((root / "fastproto").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and is_compiled(node)]
        code = [line for node in functions for line in node.body]  # without annotations and decorators
        used = {name.id for line in code for name in ast.walk(line) if isinstance(name, ast.Name)}
        for node in tree.body:
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("fastproto"):
                continue
            if used & {alias.name for alias in node.names}:
                seen += 1
                assert f"{str(node.module).rpartition('.')[2]}.py" in stamped, (file, node.module)
    assert seen > 5


def is_compiled(function: ast.FunctionDef) -> bool:
    calls = [node.func for node in function.decorator_list if isinstance(node, ast.Call)]
    return any(isinstance(call, ast.Name) and call.id == "compiled" for call in calls)
