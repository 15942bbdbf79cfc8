"""The providers of a group compute the same, as far as their peers' conventions allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.bench_assign import ASSIGN, work_of_pass
from benchmarks.bench_gaussian_potential import GAUSSIAN_POTENTIAL, T, products_of
from benchmarks.bench_head_step import HEAD_STEP
from benchmarks.bench_ipm_loss import IPM_LOSS
from benchmarks.bench_linear_sum_assignment import COSTS, LAPJV_PLANE, LINEAR_SUM_ASSIGNMENT
from benchmarks.bench_nearest_prototypes import NEAREST_PROTOTYPES
from benchmarks.bench_uniformity_loss import UNIFORMITY_LOSS
from benchmarks.bench_update_class_means import UPDATE_CLASS_MEANS
from benchmarks.comparison import Comparison, Setup, Size, Unavailable
from fastproto import reference
from fastproto.assignment.match_means import factor_scores
from fastproto.assignment.scores_cpu import CpuFactorScores
from fastproto.cpu.gaussian_potential import gaussian_potential
from fastproto.support.options import PRECISIONS, Precision

CPU = torch.device("cpu")


def found(what: Comparison, size: Size, names: Iterable[str]) -> dict[str, Any]:
    """What the first call of each provider returns, on inputs of its own."""
    results = {}
    for name in names:
        try:
            built = what.providers[name].build(what.inputs(size, CPU))
        except Unavailable:
            continue
        results[name] = (built.call if isinstance(built, Setup) else built)(0)
    return results


def agree(results: dict[str, Any], of: Callable[[Any], Tensor], tolerance: float = 2e-5) -> None:
    first = of(results["fastproto"] if "fastproto" in results else next(iter(results.values()))).double()
    assert len(results) > 1 and first.norm() > 0
    for name, result in results.items():
        error = (of(result).double() - first).norm() / first.norm()
        assert error < tolerance, f"{name}: {float(error):.1e}"


def tangent(points: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient - (gradient * points).sum(1, keepdim=True) * points


def test_gradients_of_the_head() -> None:
    results = found(HEAD_STEP, {"C": 30, "D": 8, "B": 12}, ("fastproto", "naive torch", "authors' formula"))
    results["authors' formula"] /= 2 * 12  # of the sum of (1 - cos)², not the mean of half of it
    agree(results, lambda gradient: gradient)


def test_softmax_and_its_chunks() -> None:
    agree(found(HEAD_STEP, {"C": 30, "D": 8, "B": 12}, ("softmax", "linear_cross_entropy")), lambda gradient: gradient)


def test_gradients_of_the_loss() -> None:
    size = {"C": 30, "D": 8, "B": 12, "features": "far"}
    agree(found(IPM_LOSS, size, ("fastproto, p = 2", "naive torch")), lambda gradient: gradient)


def test_class_means_without_and_with_several_samples_of_a_class() -> None:
    size = {"C": 1000, "D": 8, "B": 12}
    features, labels = UPDATE_CLASS_MEANS.inputs(size, CPU).batch(0)
    assert len(labels.unique()) == len(labels), "the naive form counts one sample of a class"
    results = found(UPDATE_CLASS_MEANS, size, UPDATE_CLASS_MEANS.providers)
    agree(results, lambda means: normalize(means, dim=1))
    true = reference.update_class_means(torch.zeros(1000, 8), features, labels, 0.9)
    assert torch.allclose(results["fastproto"], true, atol=1e-6)


def test_nearest_prototypes() -> None:
    size = {"C": 300, "D": 16, "B": 40, "k": 5}
    results = found(NEAREST_PROTOTYPES, size, ("fastproto", "matmul and topk"))
    agree(results, lambda pair: pair[0])
    agree(results, lambda pair: pair[1], 1e-12)


def test_passes_of_the_potential() -> None:
    size = {"C": 90, "D": 8}
    w = GAUSSIAN_POTENTIAL.inputs(size, CPU)
    passes = found(GAUSSIAN_POTENTIAL, size, ("fastproto, highest", "symmetric loop", "attention"))
    agree(passes, lambda pair: pair[0])
    agree(passes, lambda pair: tangent(w)(pair[1]))
    potential, pull = passes["symmetric loop"]
    gradients = found(GAUSSIAN_POTENTIAL, size, ("autograd", "authors' formula"))
    agree(gradients | {"from the pass": (4 * T * pull / potential.sum(),)}, lambda result: tangent(w)(result[0]))


def test_the_uniformity_loss() -> None:
    size = {"C": 90, "D": 8}
    names = ("fastproto", "naive torch", "authors' formula")
    agree(found(UNIFORMITY_LOSS, size, names), lambda pair: tangent(UNIFORMITY_LOSS.inputs(size, CPU))(pair[0]))


@pytest.mark.parametrize("kind", ["clustered", "easy"])
def test_solvers_reach_the_same_objective(kind: str) -> None:
    size = {"C": 60, "D": 8, "means": kind}
    means, prototypes = (x.double() for x in ASSIGN.inputs(size, CPU))

    def objective(result: Any) -> Tensor:
        permutation = torch.as_tensor(getattr(result, "permutation", result), dtype=torch.int64)
        assert permutation.sort().values.equal(torch.arange(60))
        return (means * prototypes[permutation]).sum()

    names = ("fastproto", "fastproto, unchanged", "lapjv", "lapx", "SciPy")
    agree(found(ASSIGN, size, names), objective, 1e-6)


@pytest.mark.parametrize("kind", COSTS)
def test_totals_of_cost_matrices(kind: str) -> None:
    size = {"C": 120, "costs": kind}
    costs = torch.from_numpy(LINEAR_SUM_ASSIGNMENT.inputs(size, CPU)[1])
    columns = found(LINEAR_SUM_ASSIGNMENT, size, LINEAR_SUM_ASSIGNMENT.providers)

    def total(chosen: Any) -> Tensor:
        return costs[torch.arange(120), torch.as_tensor(chosen).long()].sum()

    agree(columns, total, tolerance=1e-12)


def test_lapjv_gets_the_plane_up_to_a_size() -> None:
    pytest.importorskip("lapjv")
    build = LINEAR_SUM_ASSIGNMENT.providers["lapjv"].build
    build(LINEAR_SUM_ASSIGNMENT.inputs({"C": LAPJV_PLANE, "costs": "plane"}, CPU))
    build(LINEAR_SUM_ASSIGNMENT.inputs({"C": LAPJV_PLANE + 1, "costs": "uniform"}, CPU))
    with pytest.raises(Unavailable, match=f"up to C = {LAPJV_PLANE}: the size is the limit"):
        build(LINEAR_SUM_ASSIGNMENT.inputs({"C": LAPJV_PLANE + 1, "costs": "plane"}, CPU))


def of_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dim", [16, 64])
def test_the_work_of_an_assignment_is_of_the_precision_of_its_scores(dim: int) -> None:
    means, prototypes = ASSIGN.inputs({"C": 200, "D": dim, "means": "easy"}, CPU)
    scores, _ = factor_scores(means, means.norm(dim=1).double(), prototypes)
    assert isinstance(scores, CpuFactorScores)
    needed = work_of_pass((means, prototypes))
    assert needed.precision == of_dtype(scores.blocks.left.dtype) and needed.flops == 2 * 200**2 * dim


class Multiplied(TorchDispatchMode):
    """Collects the dtypes of the products."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in op.__name__:
            self.dtypes |= {x.dtype for x in args if isinstance(x, Tensor)}
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", [(700, 32), (300, 96), (600, 96)])
def test_the_work_of_the_potential_is_of_the_precision_of_its_products(
    precision: Precision, size: tuple[int, int]
) -> None:
    w = GAUSSIAN_POTENTIAL.inputs({"C": size[0], "D": size[1]}, CPU)
    with Multiplied() as ran:
        gaussian_potential(w, None, T, None, None, precision)
    rounded = [dtype for dtype in (torch.int8, torch.bfloat16) if dtype in ran.dtypes]  # the moments are in float32
    assert products_of(precision, w) == of_dtype((rounded or [torch.float32])[0])
