"""What makes, measures, saves and reads prototypes, on thousands of sizes and vectors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

from fastproto import Prototypes, baselines, estimate_prototypes, load_prototypes, measure_prototypes, prototypes

from .exploring import eps, explore, refused, same, twice, within
from .inputs import DTYPES, LAYOUTS, bad_floats, laid_out, made, unit

pytestmark = pytest.mark.slow


@st.composite
def rows(draw: st.DrawFn) -> tuple[Tensor, torch.Generator]:
    """Vectors [C, D] of any length."""
    count, dim = draw(st.integers(2, 60)), draw(st.integers(2, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    w = unit(count, dim, generator, torch.float64) * 10.0 ** draw(st.integers(-3, 3))
    return laid_out(w.to(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(LAYOUTS))), generator


def measured(w: Tensor, t: float) -> dict[str, float]:
    z = torch.nn.functional.normalize(w.double(), dim=1)
    cosines = (z @ z.T)[~torch.eye(len(z), dtype=torch.bool)].clamp(-1, 1).view(len(z), -1)
    return {
        "uniformity": float(torch.logsumexp((2 * t * (cosines - 1)).flatten(), 0)) - math.log(cosines.numel()),
        "max_cosine": float(cosines.max()),
        "mean_max_cosine": float(cosines.max(1).values.mean()),
        "min_cosine": float(cosines.min()),
        "mean_angle": float(cosines.acos().rad2deg().mean()),
    }


def test_measure_prototypes() -> None:
    def check(case: tuple[tuple[Tensor, torch.Generator], float]) -> None:
        (w, generator), t = case
        found = twice(measure_prototypes, w, t)
        turn = torch.linalg.qr(torch.randn(w.shape[1], w.shape[1], generator=generator, dtype=torch.float64))[0]
        moved = measure_prototypes((w.double() @ turn)[torch.randperm(len(w), generator=generator)] * 3, t)
        for name, value in measured(w, t).items():
            rounding = 1e-5 if name == "mean_angle" else 1e-12 * (1 + t)  # the arc cosine is steep at its ends
            assert getattr(found, name) == pytest.approx(value, abs=rounding), name
            assert getattr(moved, name) == pytest.approx(value, abs=10 * rounding), name
        assert found.uniformity >= found.uniformity_bound - 1e-9
        assert found.max_cosine >= found.max_cosine_bound - 1e-9

    explore("measure_prototypes", st.tuples(rows(), st.sampled_from([0.01, 1.0, 2.0, 8.0, 100.0])), check)


def test_measure_prototypes_refuses() -> None:
    def check(case: tuple[tuple[Tensor, torch.Generator], int]) -> None:
        (w, generator), pick = case
        zero = w.clone(memory_format=torch.contiguous_format)
        zero[pick % len(w)] = 0
        wrong: list[tuple[Any, float]] = [(x, 2.0) for x in bad_floats(w, generator, rows_may_differ=True)]
        wrong += [(w, value) for value in (0.0, -1.0, math.nan, math.inf)] + [(zero, 2.0), (w[:1], 2.0)]
        given, t = wrong[pick % len(wrong)]
        refused(measure_prototypes, made(given), t)

    explore("measure_prototypes, bad inputs", st.tuples(rows(), st.integers(0, 10_000)), check)


sizes = st.tuples(st.integers(2, 300), st.integers(2, 300))


def test_closed_form() -> None:
    def check(case: tuple[tuple[int, int], str, float]) -> None:
        (count, dim), objective, t = case
        found = prototypes.closed_form(count, dim, objective, t)
        if found is None:
            assert count > 2 * dim > 4
            return
        w, _ = found
        within(w.norm(dim=1), torch.ones(count, dtype=torch.float64), 1e-12)
        cosines = (w @ w.T).fill_diagonal_(-1.0)
        bound = prototypes.max_cosine_bound(count, dim)
        assert float(cosines.max()) >= bound - 1e-9
        if count <= dim + 1 or count >= 2 * dim or objective == "max_cosine":
            assert float(cosines.max()) == pytest.approx(bound, abs=1e-9)
        assert measured(w, t)["uniformity"] >= prototypes.uniformity_bound(count, dim, t) - 1e-9

    objectives, sharpness = st.sampled_from(["uniform", "max_cosine"]), st.sampled_from([0.5, 1.0, 2.0, 8.0])
    explore("closed_form", st.tuples(sizes, objectives, sharpness), check)


def test_binary_code() -> None:
    def check(case: tuple[int, int]) -> None:
        count, dim = case
        capacity = prototypes.code_capacity(dim)
        if count > capacity:
            refused(prototypes.binary_code, count, dim)
            return
        w = prototypes.binary_code(count, dim)
        assert same(w, prototypes.binary_code(count, dim)) and w.shape == (count, dim)
        within(w.norm(dim=1), torch.ones(count, dtype=torch.float64), 1e-12)
        bound = 0.0 if count <= 2 * dim else math.sqrt((2 if dim.bit_length() % 2 == 0 else 1) / dim)
        assert float((w @ w.T).fill_diagonal_(-1.0).max()) <= bound + 1e-12

    dims = st.sampled_from([4, 8, 16, 32, 64]) | st.integers(2, 70)
    explore("binary_code, code_capacity", st.tuples(st.integers(2, 600), dims), check)


def test_bounds() -> None:
    def check(case: tuple[tuple[int, int], float]) -> None:
        (count, dim), t = case
        low, cosine = prototypes.uniformity_bound(count, dim, t), prototypes.max_cosine_bound(count, dim)
        assert -1 - 1e-12 <= cosine < 1 and low >= -4 * t * (1 + 1e-12)
        assert prototypes.uniformity_bound(count + 1, dim, t) >= low - 1e-9
        assert prototypes.max_cosine_bound(count + 1, dim) >= cosine - 1e-9
        for wrong in ((1, dim), (count, 1), (-count, dim)):
            refused(prototypes.uniformity_bound, *wrong, t)
            refused(prototypes.max_cosine_bound, *wrong)
        refused(prototypes.uniformity_bound, count, dim, -t)

    explore("uniformity_bound, max_cosine_bound", st.tuples(sizes, st.floats(0.01, 50)), check)


def test_estimate_prototypes() -> None:
    def check(case: tuple[int, int, str, str, float, int, int]) -> None:
        count, dim, objective, method, t, seed, passes = case
        options: dict[str, Any] = {"objective": objective, "method": method, "t": t, "seed": seed, "cache": False}
        if method == "sgd":
            options |= {"iterations": 20, "objective": "uniform"}
        found, again = (estimate_prototypes(count, dim, max_passes=passes, **options) for _ in range(2))
        w = found.vectors
        assert same(w, again.vectors) and w.shape == (count, dim) and w.dtype == torch.float32
        assert found.passes <= passes
        within(w.double().norm(dim=1), torch.ones(count, dtype=torch.float64), 1e-6)
        quality = found.quality
        assert quality.uniformity >= quality.uniformity_bound - 1e-5 * (1 + t)
        assert quality.max_cosine >= quality.max_cosine_bound - 1e-5

    cases = st.tuples(
        st.integers(2, 60),
        st.integers(2, 12),
        st.sampled_from(["uniform", "max_cosine"]),
        st.sampled_from(["auto", "lbfgs", "sgd"]),
        st.sampled_from([0.5, 2.0, 8.0]),
        st.integers(0, 2**31),
        st.integers(1, 60),
    )
    explore("estimate_prototypes", cases, check)


def test_estimate_prototypes_refuses() -> None:
    def check(case: tuple[int, int, int]) -> None:
        count, dim, pick = case
        wrong: list[dict[str, Any]] = [
            *({"num_classes": value} for value in (1, 0, -count, 2.5, "3", None)),
            *({"dim": value} for value in (1, 0, -dim, 2.5, "3", None)),
            *({"t": value} for value in (0.0, -2.0, math.nan, math.inf)),
            *({name: "other"} for name in ("objective", "method", "precision", "form")),
            *({"max_passes": value} for value in (0, -1)),
            *({"time_limit": value} for value in (0.0, -1.0, math.nan)),
            {"method": "binary_code", "dim": 12},
        ]
        options = {"num_classes": count, "dim": dim, "cache": False} | wrong[pick % len(wrong)]
        refused(estimate_prototypes, **options)

    cases = st.tuples(st.integers(2, 60), st.integers(2, 12), st.integers(0, 10_000))
    explore("estimate_prototypes, bad arguments", cases, check)


def test_files(tmp_path: Path) -> None:
    def check(case: tuple[tuple[Tensor, torch.Generator], str]) -> None:
        (given, _), suffix = case
        w = laid_out(torch.nn.functional.normalize(given.double(), dim=1).float(), "transposed")
        before = Prototypes(w, 2.0, "lbfgs", 7, 1.5)
        path = tmp_path / f"prototypes{suffix}"
        before.save(path)
        after, again = load_prototypes(path), load_prototypes(path, t=3.0)
        assert same(after.vectors, again.vectors) and again.t == 3.0
        if suffix in (".safetensors", ".npz"):
            assert same(after.vectors, w.contiguous()) and (after.method, after.passes) == ("lbfgs", 7)
        else:
            within(after.vectors, w.double(), 4 * eps(torch.float32))
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        refused(load_prototypes, path)
        path.unlink()

    suffixes = st.sampled_from([".safetensors", ".npz", ".pth", ".npy"])
    explore("Prototypes.save, load_prototypes", st.tuples(rows(), suffixes), check)


@st.composite
def vocabularies(draw: st.DrawFn) -> tuple[list[str], np.ndarray[Any, Any], str, str]:
    letters = st.text(st.sampled_from("abcdeäß漢"), min_size=1, max_size=6)
    names = draw(st.lists(letters, min_size=2, max_size=12, unique=True))
    seed, dim = draw(st.integers(0, 2**32)), draw(st.integers(2, 12))
    vectors = np.random.default_rng(seed).normal(size=(len(names), dim))
    return names, vectors, draw(st.sampled_from([" ", "\t"])), draw(st.sampled_from([".txt", ".npz"]))


def test_load_word_vectors(tmp_path: Path) -> None:
    def check(case: tuple[list[str], np.ndarray[Any, Any], str, str]) -> None:
        names, vectors, between, suffix = case
        path = tmp_path / f"words{suffix}"
        if suffix == ".npz":
            np.savez(path, names=np.array(names), vectors=vectors)
        else:
            lines = [name + between + " ".join(map(repr, map(float, row))) for name, row in zip(names, vectors)]  # noqa: B905
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        wanted = names[::-1]
        found = prototypes.load_word_vectors(path, [name.upper() if name.isascii() else name for name in wanted])
        expected = torch.nn.functional.normalize(torch.from_numpy(vectors[::-1].copy()), dim=1)
        within(found.vectors, expected, 2 * eps(torch.float32))
        refused(prototypes.load_word_vectors, path, [*names, "zzz"])
        refused(prototypes.load_word_vectors, path, [names[0], names[0]])
        refused(prototypes.load_word_vectors, path, names[:1])

    explore("load_word_vectors", vocabularies(), check)


def test_semantic_prototypes() -> None:
    def check(case: tuple[tuple[Tensor, torch.Generator], int, int]) -> None:
        (words, _), dim, seed = case
        found = twice(baselines.semantic_prototypes, words, dim, steps=10, seed=seed)
        assert found.shape == (len(words), dim)
        within(found.double().norm(dim=1), torch.ones(len(words), dtype=torch.float64), 1e-6)

    explore("semantic_prototypes", st.tuples(rows(), st.integers(2, 12), st.integers(0, 2**31)), check)


def test_check_shape() -> None:
    def check(case: tuple[tuple[Tensor, torch.Generator], int]) -> None:
        (given, generator), pick = case
        w = torch.nn.functional.normalize(given.double(), dim=1).float()
        assert same(twice(prototypes.check_shape, w, *w.shape), w)
        wrong: list[Any] = [*bad_floats(w, generator), lambda: w * 1.5, lambda: w.clone().requires_grad_()]
        refused(prototypes.check_shape, made(wrong[pick % len(wrong)]), *w.shape)
        refused(prototypes.check_shape, w, len(w) + 1, w.shape[1])

    explore("check_shape", st.tuples(rows(), st.integers(0, 10_000)), check)
