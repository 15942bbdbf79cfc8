"""What the pages show runs: Python blocks in order, command lines by their parsers, settings as a configuration."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastproto.training import TrainConfig
from tests.docs.command_lines import check_command, command_lines
from tests.docs.pages import Block, blocks, pages

ROOT = Path(__file__).parents[2]
LANGUAGES = ("python", "sh", "yaml", "text", "bibtex")
PRINTED = re.compile(r"^\s*print\(.*\)  # -> (.+)$")
BLOCKS = [block for page in pages(ROOT) for block in blocks(page)]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def named(found: list[Block]) -> list[Any]:
    """Parameters; a block that is not run is listed as skipped, with its reason."""
    return [
        pytest.param(b, id=str(b), marks=[pytest.mark.skip(reason=f"{b}: {b.reason}")] if b.reason else [])
        for b in found
    ]


def test_every_block_says_what_it_is() -> None:
    assert len(BLOCKS) > 5
    assert not [f"{block} is {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES]


@pytest.mark.filterwarnings(r"ignore:.*TreeSpec:FutureWarning")  # of Lightning, to its developers
@pytest.mark.filterwarnings(r"ignore:The '.*dataloader' does not have many workers")
@pytest.mark.filterwarnings(r"ignore:The number of training batches")
@pytest.mark.parametrize("page", sorted({b.page for b in of("python")}), ids=lambda page: page.name)
def test_python_blocks_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace; what a line prints is compared with the words behind its ``# ->``."""
    monkeypatch.chdir(tmp_path)
    printed: dict[int, str] = {}

    def remember(*values: object) -> None:
        printed[sys._getframe(1).f_lineno] = " ".join(map(str, values))

    namespace = {"__name__": "page", "print": remember}
    for block in blocks(page):
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            if block.reason is None:
                exec(code, namespace)
                for number, line in enumerate(block.text.splitlines(), block.line):
                    if promised := PRINTED.match(line):
                        assert printed[number] == promised[1], f"{page.name}:{number}"


@pytest.mark.parametrize("block", named(of("sh")))
def test_command_lines(block: Block, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in command_lines(block.text):
        check_command(words, root)


@pytest.mark.parametrize("block", named(of("yaml")))
def test_settings(block: Block) -> None:
    TrainConfig.from_dict(yaml.safe_load(block.text)).check()


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b)) for b in of("python") if b.reason])
def test_python_that_is_not_run_is_listed(block: Block) -> None:
    pytest.skip(f"{block}: {block.reason}")


@pytest.mark.parametrize(
    "line",
    [
        "fastproto-train --head.dimension 3",
        "fastproto-train --config",
        "fastproto-predict",
        "fastproto-bench --scale large",
        "fastproto-prototypes --num-classes 10",
        "fastproto-export run model.onnx --fromat torch",
        "scripts/report --chekc",
        "scripts/nothing",
        "pytest tests/no_file.py",
        "pip install .[none]",
        "torchrun --no-python fastproto-train --no-such",
        "srun --ntasks=2 fastproto-train --no-such",
        "make",
    ],
)
def test_a_wrong_line_is_found(line: str, root: Path) -> None:
    ((words),) = command_lines(line)
    with pytest.raises(ValueError, match=r".+"):
        check_command(words, root)
