"""A compiled training step does no work and makes no memory that grows with the number of classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastproto import PrototypeHead

from ..helpers import unit_rows

B, D = 64, 16
C = 300_000


def allocated(c: int, backend: str) -> int:
    """Bytes that torch allocates in a compiled step with new labels, forward and backward; it is not compiled anew."""
    torch.compiler.reset()
    head, backbone = PrototypeHead(c, D, prototypes=unit_rows(c, D)), nn.Linear(D, D)

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = head(backbone(x), y)
        return loss

    run = torch.compile(forward, fullgraph=True, backend=backend)

    def step() -> None:
        run(torch.randn(B, D), torch.randint(0, c, (B,))).backward()

    step()
    with torch.compiler.set_stance("fail_on_recompile"):
        step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            step()
    assert int(head.updates) == 3
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]  # None before the profile, says torch
    return sum(event.nbytes() for event in events if event.name() == "[memory]" and event.nbytes() > 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_a_compiled_step_does_not_grow_with_the_classes() -> None:
    assert 0 < allocated(C, "inductor") < C, "no tensor of a byte for each class"
    # A compiler that does not write into the class means in place copies them, and the measure sees it.
    assert allocated(C, "aot_eager") > 4 * C * D
