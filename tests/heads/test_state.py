"""States that a head loads."""

from __future__ import annotations

import torch

from fastproto import (
    reference,
)

from ..every_head import head
from ..helpers import unit_rows


def test_a_state_that_holds_one_tensor_twice() -> None:
    w = unit_rows(10, 4)
    state = head().state_dict() | {"prototypes": w, "class_means": w}
    for given in (state, state | {"class_means": torch.zeros(1, 4).expand(10, 4)}):
        made = head()
        made.load_state_dict(given, assign=True)
        before = made.class_means.clone()
        x, y = torch.randn(5, 4), torch.tensor([0, 1, 1, 2, 9])
        made(x, y)
        assert torch.equal(made.prototypes, w)
        torch.testing.assert_close(made.class_means, reference.update_class_means(before, x, y, 0.9))
