"""Configuration files with damage of every kind: read, or refused in one sentence, and never obeyed."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastproto.training import TrainConfig
from fastproto.training.config_files import LARGEST_FILE, config_text, read_config
from fastproto.training.parse_settings import OPTIONS, from_text, unflatten

pytestmark = pytest.mark.slow

WHOLE = config_text(TrainConfig()).encode()
PIECES = st.sampled_from(
    [b"\t", b"\n", b"&a ", b"*a", b"!!python/name:os.system ", b"- ", b"? ", b": ", b"[", b"{", b"'"]
)
TEXT = st.text(st.characters(exclude_categories=()), min_size=1, max_size=30).filter(lambda text: text.strip() != "")


@st.composite
def damaged(draw: Any) -> bytes:
    content = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(content)))
        piece = draw(st.binary(max_size=4) | PIECES)
        content[at : at + draw(st.integers(0, 20))] = piece
    return bytes(content)


@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(content)
    try:
        TrainConfig.from_dict(unflatten(read_config(file))).check()
    except ValueError as error:
        assert 0 < len(str(error)) < 2000


@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXT)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "text.yaml"
    config = TrainConfig(name=text, out=text)
    config.data.root = config.head.prototypes = text
    file.write_bytes(config_text(config).encode())
    assert TrainConfig.from_dict(unflatten(read_config(file))) == config


@settings(max_examples=10_000, deadline=None)
@given(st.sampled_from(sorted(OPTIONS)), st.text(max_size=20))
def test_any_value_of_any_option(key: str, text: str) -> None:
    try:
        flat = {name: option.default for name, option in OPTIONS.items()} | {key: from_text(OPTIONS[key], text)}
        TrainConfig.from_dict(unflatten(flat)).check()
    except ValueError as error:
        assert key in str(error) or key.rpartition(".")[0] in str(error)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "&a [*a, "])
def test_memory_is_bounded_by_the_size_of_the_file(opening: str, tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text(opening * (LARGEST_FILE // len(opening)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"large\.yaml"):
            read_config(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{opening!r} {LARGEST_FILE} bytes: peak {peak / LARGEST_FILE:.0f} times the file")
    assert peak < 100 * LARGEST_FILE
