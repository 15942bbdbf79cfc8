"""A processor with or without quick bfloat16 products, whichever it has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch


@pytest.fixture
def quick_bfloat16(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Gives torch's answers about the processor; where its instructions are emulated, the roundings are the same."""

    def answer(quick: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: quick, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: quick, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)

    return answer
