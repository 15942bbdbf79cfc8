"""Files of prototypes and of word vectors: ours, the authors', HPN's; damaged, foreign and malicious ones."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto import cli
from fastproto.prototypes import Prototypes, check_shape, estimate_prototypes, load_prototypes, load_word_vectors


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def prototypes() -> Prototypes:
    return estimate_prototypes(9, 4, max_passes=10, cache=False)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".npy"])
def test_round_trip(suffix: str, prototypes: Prototypes) -> None:
    file = Path("deep", "folder", f"w{suffix}")
    prototypes.save(file)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    again = load_prototypes(file)
    torch.testing.assert_close(again.vectors, prototypes.vectors, rtol=0, atol=1e-7)
    if suffix in (".safetensors", ".npz"):
        assert torch.equal(again.vectors, prototypes.vectors)
        assert (again.method, again.passes) == (prototypes.method, prototypes.passes)
        assert again.seconds == prototypes.seconds
    else:
        assert again.method == "file"


def test_formats_of_others_have_their_layout(prototypes: Prototypes) -> None:
    prototypes.save("w.pth")
    assert torch.load("w.pth", weights_only=True)["w"].shape == (4, 9)
    prototypes.save("w.npy")
    assert np.load("w.npy").shape == (9, 4)


def test_foreign_rows_are_normalised() -> None:
    w = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.save({"w": 7 * w.T}, "w.pth")
    np.save("w.npy", (7 * w).double().numpy())
    for name in ("w.pth", "w.npy"):
        expected = torch.nn.functional.normalize(w, dim=1)
        torch.testing.assert_close(load_prototypes(name).vectors, expected, rtol=0, atol=1e-6)


def test_no_pickled_code_is_executed() -> None:
    Path("w.pth").write_bytes(pickle.dumps({"w": Malicious()}))
    np.save("w.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    np.savez("w.npz", vectors=np.array([Malicious()], dtype=object))
    torch.save({"w": Malicious()}, "v.pth")
    for name in ("w.pth", "w.npy", "w.npz", "v.pth"):
        with pytest.raises(ValueError, match=name):
            load_prototypes(name)
    assert not Path("executed").exists()


def test_files_of_other_content_are_refused(prototypes: Prototypes) -> None:
    with pytest.raises(FileNotFoundError, match="no prototype file"):
        load_prototypes("absent.npy")
    torch.save({"v": torch.eye(3)}, "a.pth")
    torch.save({"w": torch.ones(3)}, "b.pth")
    np.savez("c.npz", rows=np.eye(3))
    np.save("d.npy", np.ones((2, 3, 4)))
    np.save("e.npy", np.zeros((3, 3)))
    np.save("f.npy", np.full((3, 3), np.nan))
    np.save("g.npy", np.eye(3, dtype=np.int64))
    np.savez("h.npz", vectors=2 * np.eye(3))
    Path("i.safetensors").write_bytes(b"not this")
    Path("j.csv").write_text("1,2")
    for name in ("a.pth", "b.pth", "c.npz", "d.npy", "e.npy", "f.npy", "g.npy", "h.npz", "i.safetensors", "j.csv"):
        with pytest.raises((ValueError, TypeError), match=r"(?s)" + name + ".*expected") as caught:
            load_prototypes(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="expected a name that ends in"):
        prototypes.save("w.csv")
    with pytest.raises(ValueError, match=r"expected \[10, 4\]"):
        check_shape(prototypes, 10, 4)


# --- word vectors ----------------------------------------------------------------------------------------------------

LINES = ["apple 1 0 0", "sea 0 2 0", "lion 0 0 3", "Polar_bear 1 1 0", "the 5 5 5", ". . . 9 9 9"]


@pytest.mark.parametrize("first", [[], ["6 3"]])
def test_word_vectors_from_text(first: list[str]) -> None:
    Path("words.txt").write_text("\n".join([*first, *LINES]) + "\n")
    found = load_word_vectors("words.txt", ["polar bear", "Apple", "sea lion"])
    half = 0.5**0.5
    expected = torch.tensor([[half, half, 0], [1, 0, 0], [0, half, half]])
    torch.testing.assert_close(found.vectors, expected, rtol=0, atol=1e-6)
    assert found.method == "word_vectors" and found.passes == 0


def test_word_vectors_from_npz_and_from_tabs() -> None:
    np.savez("words.npz", names=np.array(["sea lion", "apple"]), vectors=np.array([[0.0, 2.0], [1.0, 0.0]]))
    Path("words.tsv").write_text("sea lion\t0 2\napple\t1 0\n")
    for name in ("words.npz", "words.tsv"):
        assert torch.equal(load_word_vectors(name, ["apple", "sea-lion"]).vectors, torch.eye(2))


def test_word_vectors_that_do_not_fit_are_refused() -> None:
    Path("words.txt").write_text("\n".join([*LINES, "zero 0 0 0", "short 1 2", "text a b c"]) + "\n")
    np.savez("bad.npz", names=np.array(["a", "b"]), vectors=np.eye(3))
    for order in "<>":
        forged = np.array([[97, 0x110000], [98, 99]], dtype=f"{order}u4").view(f"{order}U2").reshape(2)
        np.savez("forged.npz", names=forged, vectors=np.eye(2))
        with pytest.raises(
            ValueError,
            match=r"forged\.npz could not be read .*'names' holds numbers above the largest Unicode code point",
        ):
            load_word_vectors("forged.npz", ["a", "b"])
    np.savez("other.npz", rows=np.eye(3))
    cases: list[tuple[str, list[str], str]] = [
        ("words.txt", ["apple", "pear", "sea cow"], "no vector for 2 of 3 classes .'pear', 'sea cow'"),
        ("words.txt", ["apple"], "at least 2"),
        ("words.txt", ["apple", "Apple"], "each once"),
        ("words.txt", ["apple", "zero"], "row 1 is zero"),
        ("words.txt", ["apple", "text"], "line 9 is not a name and numbers"),
        ("bad.npz", ["a", "b"], "expected .N. and .N, D."),
        ("other.npz", ["a", "b"], "expected arrays 'names' and 'vectors'"),
    ]
    for name, names, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            load_word_vectors(name, names)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no file of word vectors"):
        load_word_vectors("absent.txt", ["a", "b"])


# --- the command -----------------------------------------------------------------------------------------------------


def test_command_makes_measures_and_converts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.prototypes(["--num-classes", "10", "--dim", "7", "--out", "w.npy"]) == 0
    assert "pairs_and_simplex" in capsys.readouterr().out
    assert cli.prototypes(["--measure", "w.npy"]) == 0
    assert "10 in 7 dimensions, file" in capsys.readouterr().out
    arguments = "--num-classes 20 --dim 4 --method sgd --form within_batch --subset-size 5 --iterations 8 --no-cache"
    assert cli.prototypes(arguments.split()) == 0
    assert "sgd, 1 passes" in capsys.readouterr().out


def test_command_takes_word_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.txt").write_text("\n".join(LINES) + "\n")
    Path("names.txt").write_text("apple\nsea lion\n")
    assert cli.prototypes(["--words", "words.txt", "--names", "names.txt"]) == 0
    assert "2 in 3 dimensions, word_vectors" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--num-classes 10",
        "--num-classes 1 --dim 5",
        "--num-classes 10 --dim 5 --t 0",
        "--num-classes 10 --dim 5 --out w.txt",
        "--num-classes 100 --dim 10 --method binary_code",
        "--num-classes 20 --dim 5 --method sgd --subset-size 21",
        "--measure absent.npy",
        "--words words.txt",
    ],
)
def test_command_explains_bad_input(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.prototypes(arguments.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
