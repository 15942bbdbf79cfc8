"""Making, measuring, saving and loading prototypes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastproto import estimate_prototypes, load_prototypes, measure_prototypes, reference
from fastproto import prototypes as module

from .helpers import unit_rows


@pytest.mark.parametrize(("c", "d"), [(2, 2), (3, 2), (4, 3), (10, 64), (65, 64)])
def test_simplex(c: int, d: int) -> None:
    found = estimate_prototypes(c, d)
    cosines = found.vectors.double() @ found.vectors.double().T
    expected = torch.full((c, c), -1 / (c - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(cosines, expected, atol=1e-6, rtol=0)
    assert (found.method, found.passes) == ("simplex", 0)
    assert found.quality.uniformity == pytest.approx(found.quality.uniformity_bound, abs=1e-6)


def test_polygon_and_cross_polytope() -> None:
    polygon = estimate_prototypes(7, 2)
    assert polygon.method == "polygon"
    assert polygon.quality.max_cosine == pytest.approx(math.cos(2 * math.pi / 7), abs=1e-6)
    cross = estimate_prototypes(10, 5)
    assert cross.method == "cross_polytope"
    assert (cross.quality.max_cosine, cross.quality.min_cosine) == pytest.approx((0.0, -1.0))
    # one opposite at distance² 4, eight neighbours at distance² 2
    assert cross.quality.uniformity == pytest.approx(math.log((math.exp(-8) + 8 * math.exp(-4)) / 9))


def test_descent_spreads_points() -> None:
    found = estimate_prototypes(60, 6, cache=False)
    start = measure_prototypes(unit_rows(60, 6))
    assert found.quality.uniformity_bound < found.quality.uniformity < start.uniformity - 0.1
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(60))
    assert torch.equal(found.vectors, estimate_prototypes(60, 6, cache=False).vectors)
    assert not torch.equal(found.vectors, estimate_prototypes(60, 6, seed=1, cache=False).vectors)


def test_max_cosine_objective_parts_the_closest_pair() -> None:
    uniform = estimate_prototypes(60, 6, cache=False)
    apart = estimate_prototypes(60, 6, objective="max_cosine", cache=False)
    assert apart.quality.max_cosine < uniform.quality.max_cosine - 0.05


def test_limits() -> None:
    assert estimate_prototypes(50, 5, max_passes=3, cache=False).passes <= 3
    assert estimate_prototypes(50, 5, time_limit=0.0).passes == 1


def test_quality_by_hand() -> None:
    square = torch.tensor([[1.0, 0], [0, 2], [-1, 0], [0, -1]])
    quality = measure_prototypes(square)
    assert quality.uniformity == pytest.approx(float(reference.uniformity_loss(square.double())))
    assert quality.max_cosine == pytest.approx(0, abs=1e-12)
    assert quality.min_cosine == pytest.approx(-1)
    assert quality.mean_angle == pytest.approx((90 + 90 + 180) / 3)
    assert quality.mean_max_cosine == pytest.approx(0, abs=1e-12)


def test_no_set_is_better_than_the_bounds() -> None:
    for c, d in ((3, 2), (5, 3), (6, 3), (40, 3), (20, 19)):
        quality = estimate_prototypes(c, d, cache=False).quality
        assert quality.uniformity >= quality.uniformity_bound - 1e-6
        assert quality.max_cosine >= quality.max_cosine_bound - 1e-6


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_save_and_load(suffix: str, tmp_path: Path) -> None:
    made = estimate_prototypes(12, 4, max_passes=20)
    made.save(tmp_path / f"w{suffix}")
    back = load_prototypes(tmp_path / f"w{suffix}")
    assert torch.equal(back.vectors, made.vectors)
    assert (back.method, back.passes, back.quality) == (made.method, made.passes, made.quality)
    assert [file.name for file in tmp_path.iterdir()] == [f"w{suffix}"]


def test_foreign_files(tmp_path: Path) -> None:
    w = torch.randn(7, 3)
    torch.save({"w": w.T.contiguous()}, tmp_path / "authors.pth")
    np.save(tmp_path / "hpn.npy", w.numpy())
    for name in ("authors.pth", "hpn.npy"):
        torch.testing.assert_close(load_prototypes(tmp_path / name).vectors, torch.nn.functional.normalize(w, dim=1))


@pytest.mark.parametrize(("name", "c", "d"), [("1000centers_512dim", 1000, 512), ("100centers_10dim", 100, 10)])
def test_published_files(name: str, c: int, d: int, root: Path) -> None:
    path = root.parent / "shared" / "prototypes" / f"{name}.pth"
    if not path.exists():
        pytest.skip("the authors' published files are not beside the repository")
    found = load_prototypes(path)
    assert found.vectors.shape == (c, d)
    assert found.quality.uniformity == pytest.approx({1000: -3.992997, 100: -3.455158}[c], abs=1e-5)


def test_cache_is_used_and_survives_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    first = estimate_prototypes(30, 4, max_passes=10)
    (file,) = module.cache_folder().glob("30x4-*")
    monkeypatch.setattr(module, "_descend", lambda *args: pytest.fail("the cache was not used"))
    assert torch.equal(estimate_prototypes(30, 4, max_passes=10).vectors, first.vectors)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.parents[1]))
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(estimate_prototypes(30, 4, max_passes=10).vectors, first.vectors)


class Pickled:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_files_that_are_refused(tmp_path: Path) -> None:
    torch.save({"w": Pickled()}, tmp_path / "code.pth")
    torch.save({"v": torch.eye(3)}, tmp_path / "other.pth")
    np.save(tmp_path / "code.npy", np.array([Pickled()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "zero.npy", np.zeros((3, 2)))
    np.save(tmp_path / "nan.npy", np.full((3, 2), np.nan))
    np.savez(tmp_path / "other.npz", w=np.eye(3))
    (tmp_path / "short.safetensors").write_bytes(b"1234")
    (tmp_path / "text.txt").write_text("1 2 3")
    for name, message in (
        ("code.pth", "could not be read"),
        ("other.pth", "no matrix 'w'"),
        ("code.npy", "Object arrays cannot be loaded"),
        ("zero.npy", "row 0 is zero"),
        ("nan.npy", "NaN"),
        ("other.npz", "named 'vectors'"),
        ("short.safetensors", "could not be read"),
        ("text.txt", "expected .safetensors"),
    ):
        with pytest.raises(ValueError, match=message):
            load_prototypes(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no prototype file"):
        load_prototypes(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="suffix"):
        estimate_prototypes(3, 2).save(tmp_path / "w.txt")


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 1},
        {"dim": 1},
        {"t": 0.0},
        {"t": math.inf},
        {"objective": "best"},
        {"method": "magic"},
        {"max_passes": 0},
    ],
)
def test_estimate_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        estimate_prototypes(**({"num_classes": 20, "dim": 3} | arguments))
