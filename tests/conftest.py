"""Shared by all tests: fixed seeds, a cache folder of their own, one thread."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

LONG: tuple[str, ...] = ()

torch.set_num_threads(1)  # the tests' operations are small: a second thread costs more than it gives

# kernels: without a GPU they run under Triton's interpreter, which must be chosen before they are imported
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.manual_seed(0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast the first case of every test, but for those of ``LONG`` and the slow ones."""
    seen = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test not in seen and not test.startswith(LONG) and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)
        seen.add(test)


def pytest_configure(config: pytest.Config) -> None:
    # kernels: the interpreter of Triton up to 3.6 does so
    config.addinivalue_line("filterwarnings", "ignore:Conversion of an array with ndim > 0:DeprecationWarning")
    # pictures: older matplotlib calls names that pyparsing has since renamed
    config.addinivalue_line("filterwarnings", "ignore:'[a-zA-Z]+' (argument is )?deprecated[, ]:DeprecationWarning")
    # torch.compile: what it says on Python 3.13.0 alone
    config.addinivalue_line("filterwarnings", "ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
    # torch.compile of torch 2.9, of any autograd.Function
    config.addinivalue_line("filterwarnings", "ignore:.*Function'> should not be instantiated:DeprecationWarning")
