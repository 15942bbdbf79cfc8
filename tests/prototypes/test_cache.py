"""Whatever lies in the cache of prototypes, or keeps it from being written: the right prototypes, and no error."""

from __future__ import annotations

import os
import random
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastproto import estimate_prototypes
from fastproto.prototypes import Prototypes, cache_folder, load_prototypes

from ..helpers import unit_rows


def estimate(**other: int) -> Prototypes:
    return estimate_prototypes(11, 3, **({"max_passes": 4} | other))  # type: ignore[arg-type]


def from_cache(found: Prototypes, first: Prototypes) -> bool:
    """The seconds are those of the first search; a new one takes others."""
    return found.seconds == first.seconds


def replace(file: Path, vectors: torch.Tensor) -> None:
    facts = {"method": "lbfgs", "passes": "4", "seconds": "0.5", "digest": "0" * 64}
    save_file({"vectors": vectors}, file, metadata=facts)


def without_last(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def with_more_keys(file: Path) -> None:
    save_file({"vectors": unit_rows(11, 3), "others": torch.ones(2)}, file)


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "kept").write_text("of somebody")


def as_link(to: str) -> Callable[[Path], None]:
    def link(file: Path) -> None:
        file.unlink()
        file.symlink_to(to)

    return link


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


CONTENTS: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b"") and None,
    "truncated": without_last,
    "garbage": lambda file: file.write_bytes(random.Random(0).randbytes(600)) and None,
    "a header longer than memory": lambda file: file.write_bytes(struct.pack("<Q", 2**62) + b"{}") and None,
    "more keys": with_more_keys,
    "5 rows": lambda file: replace(file, unit_rows(5, 3)),
    "another D": lambda file: replace(file, unit_rows(11, 4)),
    "integers": lambda file: replace(file, torch.ones(11, 3, dtype=torch.int64)),
    "float64": lambda file: replace(file, unit_rows(11, 3).double()),
    "bfloat16": lambda file: replace(file, unit_rows(11, 3).bfloat16()),
    "NaN": lambda file: replace(file, torch.full((11, 3), torch.nan)),
    "rows that are not unit": lambda file: replace(file, torch.randn(11, 3)),
    "other unit rows": lambda file: replace(file, unit_rows(11, 3)),
    "a dangling link": as_link("nothing/here"),
    "a link to itself": lambda file: as_link(file.name)(file),
    "a pipe": as_pipe,
}


def test_cache_is_read_and_keyed_by_what_matters() -> None:
    first = estimate_prototypes(30, 5, max_passes=20)
    assert len(list(cache_folder().iterdir())) == 1
    others = [{"seed": 1}, {"t": 1.0}, {"objective": "max_cosine"}, {"max_passes": 21}, {"method": "sgd"}]
    for other in (*others, {"effort": "best"}):
        estimate_prototypes(30, 5, **({"max_passes": 20} | other))  # type: ignore[arg-type]
    assert len(list(cache_folder().iterdir())) == 7
    again = estimate_prototypes(30, 5, max_passes=20)
    assert from_cache(again, first) and torch.equal(first.vectors, again.vectors)
    assert (again.method, again.passes, again.quality) == ("lbfgs", first.passes, first.quality)


def test_damaged_cache_is_made_again() -> None:
    first = estimate_prototypes(30, 5, max_passes=20)
    (file,) = cache_folder().iterdir()
    file.write_bytes(b"nothing")
    assert torch.equal(first.vectors, estimate_prototypes(30, 5, max_passes=20).vectors)
    assert load_prototypes(file).passes == 20


def test_unwritable_cache_is_a_line_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert estimate_prototypes(30, 5, max_passes=5).passes == 5
    assert "could not write the prototype cache" in capsys.readouterr().err


@pytest.mark.parametrize("content", CONTENTS)
def test_other_content_is_made_again_and_replaced(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = estimate()
    (file,) = cache_folder().iterdir()
    assert from_cache(estimate(), first)
    CONTENTS[content](file)
    again = estimate()
    assert torch.equal(again.vectors, first.vectors) and not from_cache(again, first)
    assert from_cache(estimate(), again) and capsys.readouterr().err == ""
    assert list(cache_folder().iterdir()) == [file]


def test_a_flipped_bit_anywhere_is_seen() -> None:
    first = estimate()
    (file,) = cache_folder().iterdir()
    good = file.read_bytes()
    for at in [*range(0, len(good), 40), *range(len(good) - 132, len(good), 7)]:
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        found = estimate()
        assert torch.equal(found.vectors, first.vectors), at
        assert (found.method, found.passes) == (first.method, first.passes), at


def test_the_file_of_other_arguments_is_not_taken() -> None:
    first, other = estimate(), estimate(seed=1)
    assert not torch.equal(first.vectors, other.vectors)
    one, two = cache_folder().iterdir()
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)
    assert torch.equal(estimate().vectors, first.vectors) and torch.equal(estimate(seed=1).vectors, other.vectors)


def test_a_folder_in_its_place_is_passed_by(capsys: pytest.CaptureFixture[str]) -> None:
    first = estimate()
    (file,) = cache_folder().iterdir()
    as_folder(file)
    assert torch.equal(estimate().vectors, first.vectors)
    assert (file / "kept").read_text() == "of somebody" and list(cache_folder().iterdir()) == [file]
    assert "could not write the prototype cache" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["a file", "below a file", "a dangling link", "a long name", "no home"])
def test_where_no_folder_can_be(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nothing")
    folders = {"a file": "file", "below a file": "file/a/b", "a dangling link": "link", "a long name": 300 * "x"}
    if place == "no home":  # a user without an entry, as in some containers
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 5)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folders[place]))
    assert estimate().passes == 4
    error = capsys.readouterr().err
    assert error.startswith("fastproto: could not write the prototype cache") and error.count("\n") == 1


def test_a_relative_folder_and_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    first = estimate()
    assert from_cache(estimate(), first) and len(list((tmp_path / "here" / "fastproto").iterdir())) == 1
    shutil.rmtree("here")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # no file can grow
    try:
        assert torch.equal(estimate().vectors, first.vectors)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "here" / "fastproto").iterdir()) == []
    assert "could not write the prototype cache" in capsys.readouterr().err
