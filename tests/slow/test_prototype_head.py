"""Every method of the prototype head on thousands of batches, against plain float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor

from fastproto import PrototypeHead, baselines, reference

from .exploring import compute_dtype, cosine_error, eps, explore, reduced, refused, same, twice, within
from .inputs import DTYPES, LAYOUTS, bad_floats, bad_labels, features_of, laid_out, made, shapes, spoil, unit

pytestmark = pytest.mark.slow


class Case:
    """A head with class means of its own, and a batch."""

    def __init__(self, what: str, head: PrototypeHead, features: Tensor, labels: Tensor, seed: int) -> None:
        self.what, self.head, self.features, self.labels = what, head, features, labels
        self.generator = torch.Generator().manual_seed(seed)
        self.state = {key: value.clone() for key, value in head.state_dict().items()}

    def __repr__(self) -> str:
        return self.what

    def scores(self) -> Tensor:
        return reference.scores(self.state["class_means"].double(), self.state["prototypes"].double())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    b, c, d = draw(shapes(classes=30))
    generator = torch.Generator().manual_seed(seed := draw(st.integers(0, 2**32)))
    options: dict[str, Any] = {
        "loss": draw(st.sampled_from(["eq6", "official"])),
        "means": draw(st.sampled_from(["ema", "ema", "official"])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "momentum": draw(st.sampled_from([0.0, 0.5, 0.9, 0.999])),
    }
    kind = draw(st.sampled_from([PrototypeHead, PrototypeHead, baselines.FixedHead]))
    w = unit(c, d, generator)
    head = kind(c, d, prototypes=w, seed=seed, **options)
    seen = torch.rand(c, 1, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    if options["means"] == "ema":
        head.class_means.copy_(torch.randn(c, d, generator=generator) * 0.5 * seen)
    dtype = draw(st.sampled_from(DTYPES))
    exponent = draw(st.integers(-2, 2))
    x = features_of(b, d, dtype, exponent, w, generator, tiny=False)
    y = torch.randint(0, c, (b,), generator=generator)
    what = f"{kind.__name__}(B={b}, C={c}, D={d}, {options}), {dtype}, 1e{exponent}, seed {seed}"
    return Case(what, head, laid_out(x, draw(st.sampled_from(LAYOUTS))), y, seed)


def fresh(case: Case) -> PrototypeHead:
    return copy.deepcopy(case.head)


def per_sample(case: Case, labels: Tensor) -> Tensor:
    state, loss = case.state, "official" if case.head.loss == "official" else "eq6"
    w, a = state["prototypes"].double(), state["assignment"]
    return reference.ipm_loss(case.features.double(), labels, w, a, loss=loss)


def test_forward() -> None:
    def check(given: tuple[Case, bool, str, float, bool]) -> None:
        case, weighted, mixing, share, update = given
        head, x, y = fresh(case), case.features.detach().requires_grad_(), case.labels
        count = len(y)
        weight = torch.rand(count, generator=case.generator) * 3 if weighted else None
        options: dict[str, Any] = {"update_means": update}
        truth, counted = per_sample(case, y), y
        if mixing != "none":
            lam: Any = share if mixing == "number" else torch.rand(count, generator=case.generator)
            y2 = torch.randint(0, head.num_classes, (count,), generator=case.generator)
            options |= {"labels2": y2, "lam": lam}
            part = torch.as_tensor(lam, dtype=torch.float64)
            truth = part * truth + (1 - part) * per_sample(case, y2)
            counted = torch.where(torch.as_tensor(lam) >= 0.5, y, y2)
        if weight is not None:
            truth = truth * weight.double()
        found = head(x, y, weight, **options)
        dtype = compute_dtype(x)
        assert found.dtype == dtype or mixing == "each" or weighted  # a float32 factor takes part
        delta = 16 * cosine_error(x.shape[1], torch.float32)
        total = reduced(truth, head.reduction)
        within(found, total, delta * max(1.0, float(truth.abs().sum())))
        before = case.state["class_means"].double()
        if update and count:
            exact = x.detach().double()
            if head.means == "ema":
                after = reference.update_class_means(before, exact, counted, head.momentum)
            else:
                after = reference.update_official_means(before, exact, counted)
            within(head.class_means, after, (count + 32) * eps(torch.float32) * (1 + before.abs()))
        else:
            assert same(head.class_means, case.state["class_means"])
        assert int(head.updates) == int(case.state["updates"]) + int(update and count > 0)
        for name in ("prototypes", "assignment", "prices"):
            assert same(getattr(head, name), case.state[name]), name
        found.sum().backward()
        assert x.grad is not None and bool(x.grad.isfinite().all())
        again = fresh(case)
        assert same(found.detach(), again(x.detach(), y, weight, **options)) and same(
            head.class_means, again.class_means
        )
        head.eval()
        means = head.class_means.clone()
        head(x.detach(), y)
        assert same(head.class_means, means)

    mixing = st.sampled_from(["none", "none", "number", "each"])
    explore("PrototypeHead.forward", st.tuples(cases(), st.booleans(), mixing, st.floats(0, 1), st.booleans()), check)


def test_forward_refuses() -> None:
    def check(given: tuple[Case, int]) -> None:
        case, pick = given
        head, x, y = fresh(case), case.features, case.labels
        wrong: list[tuple[list[Any], dict[str, Any]]] = [([value, y], {}) for value in bad_floats(x, case.generator)]
        wrong += [([x, value], {}) for value in bad_labels(y, head.num_classes)]
        wrong += [([x, y], {"labels2": y}), ([x, y], {"lam": 0.5}), ([x, y, torch.ones(len(y) + 1)], {})]
        wrong += [([x, y], {"lam": 0.5, "labels2": value}) for value in bad_labels(y, head.num_classes) if value]
        arguments, options = wrong[pick % len(wrong)]
        refused(head, *map(made, arguments), **{key: made(value) for key, value in options.items()})
        state = head.state_dict()
        assert all(same(value, state[key]) for key, value in case.state.items()), "the head has changed"

    explore("PrototypeHead.forward, bad inputs", st.tuples(cases(), st.integers(0, 10_000)), check)


def test_forward_skips_bad_rows() -> None:
    def check(case: Case) -> None:
        head, alone, y = fresh(case), fresh(case), case.labels
        if not len(y) or head.means != "ema":
            return
        head.nan_policy = "skip"
        head.reduction = alone.reduction = "none"
        x = spoil(case.features, [torch.nan, torch.inf, -torch.inf][len(y) % 3], case.generator)
        good = x.isfinite().all(1)
        found, expected = head(x, y), alone(x[good], y[good])
        assert bool((found[~good] == 0).all()) and int(head.skipped) == int((~good).sum())
        within(found[good], expected.double(), 4 * eps(found.dtype))
        within(head.class_means, alone.class_means.double(), 4 * eps(torch.float32))

    explore("PrototypeHead.forward, nan_policy='skip'", cases(), check)


def test_predictions() -> None:
    def check(given: tuple[Case, float]) -> None:
        case, share = given
        head, x = fresh(case), case.features
        k = max(1, round(share * head.num_classes))
        w = case.state["prototypes"].double()[case.state["assignment"]]
        truth = reference.normalise(x.double()) @ w.T
        delta = cosine_error(x.shape[1], torch.float32)
        labels, cosines = twice(head.predict_with_cosines, x, k)
        assert same(labels, twice(head.predict, x, k))
        within(cosines, truth.sort(1, descending=True).values[:, :k], delta)
        within(cosines, truth.gather(1, labels), delta)
        assert bool((labels.sort(1).values.diff(dim=1) > 0).all())
        within(twice(head.logits, x), truth, delta)
        assert same(twice(head.weight_by_label), case.state["prototypes"][case.state["assignment"]])
        state = head.state_dict()
        assert all(same(value, state[key]) for key, value in case.state.items()), "the head has changed"

    given = st.tuples(cases(), st.floats(0, 1) | st.just(0.0))
    explore("PrototypeHead.predict, predict_with_cosines, logits, weight_by_label", given, check)


def test_predictions_refuse() -> None:
    def check(given: tuple[Case, int]) -> None:
        case, pick = given
        wrong: list[tuple[Any, int]] = [(x, 1) for x in bad_floats(case.features, case.generator, rows_may_differ=True)]
        wrong += [(case.features, value) for value in (0, -1, case.head.num_classes + 1)]
        x, k = wrong[pick % len(wrong)]
        refused(case.head.predict, made(x), k)
        refused(case.head.predict_with_cosines, made(x), k)

    explore("PrototypeHead.predict, bad inputs", st.tuples(cases(), st.integers(0, 10_000)), check)


def test_reassign() -> None:
    def check(given: tuple[Case, str]) -> None:
        case, way = given
        head, scores = fresh(case), case.scores()
        if way == "reassign":
            found = head.reassign()
        else:
            renewal = head.begin_renewal()
            head.train()
            held = head.finish_renewal(renewal, adopt=way == "adopted")
            assert held is not None
            found = held
        best = float(reference.objective(scores, reference.best_assignment(scores)))
        slack = 1e-6 * len(scores) * float(scores.std(correction=0)) + 1e-12 * len(scores)
        assert sorted(found.permutation.tolist()) == list(range(len(scores))) and found.certified
        assert float(reference.objective(scores, found.permutation)) >= best - slack
        kept = case.state["assignment"]
        assert same(head.assignment, kept if way == "left" else found.permutation)
        if way != "left":
            assert found.changed == int((found.permutation != kept).sum())
            again = head.reassign()
            assert again.changed == 0 and same(head.assignment, found.permutation)
        for name in ("prototypes", "class_means", "updates"):
            assert same(getattr(head, name), case.state[name]), name

    ways = st.sampled_from(["reassign", "adopted", "left"])
    explore("PrototypeHead.reassign, begin_renewal, finish_renewal", st.tuples(cases(), ways), check)


def test_align() -> None:
    def check(given: tuple[Case, int]) -> None:
        case, starts = given
        head, plain = fresh(case), fresh(case).reassign()
        found = head.align(starts=starts)
        w, turned = case.state["prototypes"].double(), head.prototypes.double()
        rounding = 8 * w.shape[1] * eps(torch.float32)
        within(turned @ turned.T, w @ w.T, 2 * rounding)  # the geometry stays
        within(turned, w @ found.rotation.double(), rounding)
        assert same(head.assignment, found.assignment.permutation)
        scores = reference.scores(case.state["class_means"].double(), turned)
        own = float(reference.objective(scores, head.assignment))
        slack = 1e-6 * len(w) * float(case.scores().std(correction=0)) + 2 * rounding * len(w)
        assert own >= plain.objective - slack

    explore("PrototypeHead.align", st.tuples(cases(), st.integers(1, 3)), check)


def test_state() -> None:
    def check(given: tuple[Case, str]) -> None:
        case, spoilt = given
        head, other = fresh(case), PrototypeHead(case.head.num_classes, case.head.dim, prototypes=case.head.prototypes)
        other.load_state_dict(head.state_dict())
        for part in (other.half(), other.double(), other.bfloat16()):
            state = part.state_dict()
            assert all(same(value, state[key]) for key, value in case.state.items())
        damaged = {key: value.clone() for key, value in case.state.items()}
        if spoilt == "assignment":
            damaged["assignment"][0] = damaged["assignment"][-1]
        elif spoilt == "prototypes":
            damaged["prototypes"][0] *= 1.5
        elif spoilt == "size":
            damaged["assignment"] = damaged["assignment"][1:]
        else:
            damaged[spoilt] = spoil(damaged[spoilt], torch.nan, case.generator)
        with pytest.raises(RuntimeError):
            other.load_state_dict(damaged)
        assert all(same(value, other.state_dict()[key]) for key, value in case.state.items()), "the head has changed"

    parts = st.sampled_from(["assignment", "prototypes", "size", "class_means", "prices"])
    explore("PrototypeHead.state_dict, load_state_dict", st.tuples(cases(), parts), check)


def test_heads_refuse() -> None:
    def check(given: tuple[Case, int]) -> None:
        case, pick = given
        c, d, w = case.head.num_classes, case.head.dim, case.head.prototypes
        wrong: list[dict[str, Any]] = [{"prototypes": x} for x in bad_floats(w, case.generator) if x is not None]
        wrong += [{"prototypes": lambda: w * 2}, {"prototypes": lambda: w.clone().requires_grad_()}]
        wrong += [{"momentum": value} for value in (1.0, -0.5, math.nan)]
        wrong += [{"loss": "eq7"}, {"means": "mean"}, {"reduction": ""}, {"nan_policy": "keep"}]
        wrong += [{"num_classes": 1}, {"dim": 1}, {"num_classes": c + 1}, {"dim": d + 1}]
        options = {"num_classes": c, "dim": d, "prototypes": w} | wrong[pick % len(wrong)]
        refused(PrototypeHead, **{key: made(value) for key, value in options.items()})

    explore("PrototypeHead, bad arguments", st.tuples(cases(), st.integers(0, 10_000)), check)
