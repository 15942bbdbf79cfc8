"""Word tables and lists of names as others write them, damaged or made to do harm."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto import cli
from fastproto.prototypes import load_word_vectors
from fastproto.prototypes.words import read_names
from fastproto.support.text_files import LONGEST, text_lines


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_of_any_system(encoding: str, end: str) -> None:
    lines = ["häuser 1 0 0", "", "sea lion\t0 2 0  ", "  bär\t0\t0\t3", "\t ", "x\u2028y\x0b 1 1 1"]
    for last in ("", end):
        Path("words.txt").write_bytes((end.join(lines) + last).encode(encoding))
        assert [number for number, _ in text_lines("words.txt")] == [1, 3, 4, 6]
        found = load_word_vectors("words.txt", ["Häuser", "sea-lion", "ba\u0308r"])
        assert torch.equal(found.vectors, torch.eye(3))
    Path("names.txt").write_bytes(end.join(["häuser ", "", "\tsea lion", "x\u2028y"]).encode(encoding))
    assert read_names("names.txt") == ["häuser", "sea lion", "x\u2028y"]


def test_big_endian_utf16_with_its_mark() -> None:
    Path("names.txt").write_bytes(b"\xfe\xff" + "ä\r\nb".encode("utf-16-be"))
    assert read_names("names.txt") == ["ä", "b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names.txt holds no name"),
        (b"\xef\xbb\xbf\r\n  \n", "names.txt holds no name"),
        (b"a\nh\xe4user\n", "names.txt line 2 is not UTF-8 text"),
        (b"a\nb\0c\n", "names.txt line 2 holds a NUL"),
        ("ab\n".encode("utf-16-le"), "names.txt line 1 holds a NUL"),
        (b"\xff\xfea", "names.txt is damaged UTF-16 text"),
        (gzip.compress(b"a\nb\n", mtime=0), r"names.txt is compressed \(gzip\).* unpack it first"),
        (b"PK\x03\x04", r"names.txt is compressed \(zip\)"),
        (b"a" * (LONGEST + 1), "names.txt line 1 is longer than 16,777,216 characters"),
    ],
)
def test_what_is_no_list_of_names(content: bytes, words: str) -> None:
    Path("names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_names("names.txt")
    assert "\n" not in str(caught.value)


def test_the_command_names_a_bad_list_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.txt").write_bytes("\ufeffapple 1 0\r\nsea lion\t0 1\r\n".encode())
    Path("names.txt").write_bytes("apple\r\nsea lion".encode("utf-16"))
    assert cli.prototypes(["--words", "words.txt", "--names", "names.txt"]) == 0
    assert "2 in 2 dimensions" in capsys.readouterr().out
    Path("names.txt").write_bytes(b"apple\nsee l\xf6we")
    assert cli.prototypes(["--words", "words.txt", "--names", "names.txt"]) == 2
    assert capsys.readouterr().err == (
        "error: names.txt line 2 is not UTF-8 text; expected UTF-8: save the file in that encoding\n"
    )


GOOD = "apple 1 0 0\npear 0 1 0\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apple 1 0 0\npear 0 1\n", "line 2 has 2 numbers; expected 3"),
        ("apple 1 0 0\npear 0 1 0 0\n", "line 2 has 4 numbers; expected 3"),
        ("2 3\napple 1 0 0\npear 0 1\n", "line 3 has 2 numbers; expected 3"),
        ("2 4\napple 1 0 0\npear 0 1 0\n", "line 2 has 3 numbers; expected 4"),
        ("apple\t1 0\npear\t0 1 0\n", "line 2 has 3 numbers; expected 2"),
        ("apple\t1 0\npear\t\n", "line 2 has 0 numbers; expected 2"),
        ("apple\npear\n", "line 1 has 0 numbers"),
        ("apple 1 0 0\npear 0 nan 0\n", "line 2 holds NaN or inf"),
        ("apple 1 0 0\npear 0 1e999 0\n", "line 2 holds NaN or inf"),
        ("apple 1 0 0\npear 0 1,5 0\n", "line 2 is not a name and numbers"),
        ("apple 1 0 0\npear\t0 x 0\n", "line 2 is not a name and numbers"),
        ("apple 1 0 0\npear 0 0 0\n", "row 1 is zero"),
        ("", "words.txt is empty"),
        ("\n\n \n", "words.txt is empty"),
        ("apple 1 0 0\npear 0 \0 0\n", "line 2 holds a NUL"),
        ("apple 1 0 0\n", "no vector for 1 of 2 classes .'pear'"),
    ],
)
def test_bad_lines_of_word_vectors_are_named(text: str, words: str) -> None:
    Path("words.txt").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_word_vectors("words.txt", ["apple", "pear"])
    assert "words.txt" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "2 3\n" + GOOD,
        "2\t3\n" + GOOD,
        "  apple   1  0   0  \n\tpear\t0 1\t0\n",
        GOOD + "apple 9 9 9\npear 8 8 8\n",  # the first of several counts
        "word\tx\ty\tz\napple\t1\t0\t0\npear\t0\t1\t0\n",  # a heading
        "word x y z\n" + GOOD,
        "cut 1 2\n".join(["", "apple 1 0 0\n", "pear 0 1 0\n"])[len("cut 1 2\n") :],  # a bad line that nobody needs
        "new york 1 1 1\n" + GOOD,  # a name of two words in the first line
        GOOD.replace(" ", "\t"),
    ],
)
def test_word_vectors_as_they_are_found(text: str) -> None:
    Path("words.txt").write_text(text)
    assert torch.equal(load_word_vectors("words.txt", ["apple", "pear"]).vectors, torch.eye(3)[:2])


def test_lines_in_another_encoding_matter_where_they_are_needed() -> None:
    Path("words.txt").write_bytes(GOOD.encode() + b"caf\xe9 1 1 1\n")
    assert len(load_word_vectors("words.txt", ["apple", "pear"]).vectors) == 2
    with pytest.raises(ValueError, match=r"no vector for 1 of 2 classes \('café'\).*; line 3 is not UTF-8 text"):
        load_word_vectors("words.txt", ["apple", "café"])
    Path("words.txt").write_bytes(gzip.compress(GOOD.encode()))
    with pytest.raises(ValueError, match=r"words.txt is compressed \(gzip\)"):
        load_word_vectors("words.txt", ["apple", "pear"])


def test_word_vectors_from_odd_archives() -> None:
    np.savez("a.npz", names=np.array([b"apple", b"pear"]), vectors=np.eye(2, dtype=np.int8))
    assert torch.equal(load_word_vectors("a.npz", ["apple", "pear"]).vectors, torch.eye(2))
    for names, vectors in (
        (np.array([1, 2]), np.eye(2)),
        (np.array(["apple", "pear"]), np.eye(2, dtype=complex)),
        (np.array([b"\xff", b"a"]), np.eye(2)),
        (np.array(["apple", "pear"], dtype=object), np.eye(2)),
    ):
        np.savez("b.npz", names=names, vectors=vectors)
        with pytest.raises(ValueError, match=r"b\.npz .*expected"):
            load_word_vectors("b.npz", ["apple", "pear"])
