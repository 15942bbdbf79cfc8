"""A backbone with ``predict`` or ``logits`` as a graph: the same labels for batches of other sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from fastproto import PrototypeHead
from fastproto.baselines import FixedSoftmaxHead, LinearHead, SoftmaxHead

from ..helpers import unit_rows

HEADS: dict[str, Callable[[], Any]] = {
    "prototype": lambda: PrototypeHead(20, 5, prototypes=unit_rows(20, 5)),
    "softmax": lambda: SoftmaxHead(20, 5),
    "linear": lambda: LinearHead(20, 5),
    "fixed_softmax": lambda: FixedSoftmaxHead(20, 5, prototypes=unit_rows(20, 5)),
}
DYNAMIC = ({0: torch.export.Dim.AUTO},)


class Classifier(nn.Module):
    def __init__(self, head: nn.Module, k: int) -> None:
        super().__init__()
        self.backbone, self.head, self.k = nn.Linear(6, 5), head, k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.backbone(x)
        labels, cosines = self.head.predict_with_cosines(features, self.k)
        return labels, cosines, self.head.logits(features)


def graphs(model: nn.Module, x: Tensor) -> dict[str, Callable[[Tensor], Any]]:
    return {
        "export": torch.export.export(model, (x,), dynamic_shapes=DYNAMIC, strict=False).module(),
        "strict": torch.export.export(model, (x,), dynamic_shapes=DYNAMIC, strict=True).module(),
        "trace": torch.jit.trace(model, (x,)),
        "compile": torch.compile(model, backend="aot_eager", dynamic=True, fullgraph=True),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit's own, and the compiler's imports
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("name", "k"), [("prototype", 3), ("softmax", 1)])
def test_graphs_predict_the_same_for_other_batches(name: str, k: int) -> None:
    model = Classifier(HEADS[name](), k).eval()
    made = graphs(model, torch.randn(8, 6))
    for count in (1, 2, 8, 600):
        x = torch.randn(count, 6)
        with torch.no_grad():
            labels, cosines, logits = model(x)
            for kind, graph in made.items():
                found = graph(x)
                assert torch.equal(found[0], labels), (kind, count)
                torch.testing.assert_close(found[1], cosines)
                torch.testing.assert_close(found[2], logits)
    if name == "prototype" and k == 3:
        spoiled = torch.randn(4, 6)
        spoiled[2] = torch.nan
        for kind in ("export", "strict", "trace"):
            labels, cosines, _ = made[kind](spoiled)
            assert 0 <= labels.min() <= labels.max() < 20 and cosines[2].isnan().all() and cosines[:2].isfinite().all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_trace_holds_no_constants_of_the_batch_it_was_made_with() -> None:
    head = HEADS["prototype"]()
    traced = torch.jit.trace_module(head, {"predict": torch.zeros(1, 5)})
    x = torch.randn(50, 5)
    assert torch.equal(traced.predict(x), head.predict(x))
    linear = HEADS["linear"]()
    assert torch.equal(torch.jit.trace_module(linear, {"predict": torch.zeros(2, 5)}).predict(x), linear.predict(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_graphs_of_an_average_give_the_newest_labels_or_an_error() -> None:
    newest = nn.Sequential(PrototypeHead(20, 5, prototypes=unit_rows(20, 5)))
    average = swa_utils.AveragedModel(newest, use_buffers=True).eval()
    head, kept = newest[0], average.module[0]
    x = torch.randn(50, 5)
    compiled = torch.compile(lambda x: (kept.predict(x), kept.logits(x)), backend="aot_eager", fullgraph=True)

    def renewed() -> Tensor:
        head.class_means.normal_()
        head.reassign()
        average.update_parameters(newest)
        labels: Tensor = head.predict(x)
        return labels

    renewed()
    labels = renewed()
    with torch.no_grad():
        with pytest.raises(ValueError, match=r"more than once.*call eval\(\) before the compiled model"):
            compiled(x)
        average.eval()
        assert torch.equal(compiled(x)[0], labels) and torch.equal(compiled(x)[1], head.logits(x))
        labels = renewed()
        traced = torch.jit.trace_module(kept, {"predict": torch.zeros(1, 5)})
        assert torch.equal(traced.predict(x), labels) and torch.equal(kept.assignment, head.assignment)
