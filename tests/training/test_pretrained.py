"""Pretrained weights from a file: what is taken, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastproto.models import build_backbone
from fastproto.training import fit
from fastproto.training.pretrained import load_pretrained

from .helpers import quick, state

LAST = {"cnn": "dense.3.", "resnet18": "fc.", "timm:resnet18": "fc."}


def network(name: str = "cnn", dim: int = 7, size: int = 32) -> nn.Module:
    channels = 1 if name == "cnn" else 3
    return build_backbone(name, channels=channels, image_size=size, dim=dim)


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_all_but_a_last_layer_of_another_width_is_taken(name: str, suffix: str, tmp_path: Path) -> None:
    given, file = network(name), tmp_path / f"weights{suffix}"
    torch.save(given.state_dict(), file) if suffix == ".pth" else save_file(given.state_dict(), file)
    for dim in (7, 5):
        made = network(name, dim)
        before = {key: value.clone() for key, value in made.state_dict().items()}
        load_pretrained(made, file, name)
        for key, value in made.state_dict().items():
            left_out = dim == 5 and key.startswith(LAST[name])
            assert torch.equal(value, before[key] if left_out else given.state_dict()[key]), key


def test_wrapped_and_headless_files_of_grey_and_normalised_backbones(tmp_path: Path) -> None:
    given, file = network("resnet18"), tmp_path / "weights.pt"
    headless = {key: value for key, value in given.state_dict().items() if not key.startswith("fc.")}
    torch.save({"epoch": 3, "state_dict": headless}, file)
    made = build_backbone("resnet18", channels=1, image_size=32, dim=7, batchnorm=True)
    load_pretrained(made, file, "resnet18")
    assert torch.equal(made.state_dict()["network.network.conv1.weight"], headless["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense.0.weight": None}, r"lacks dense.0.weight; expected the weights of the backbone cnn"),
        ({"more.weight": torch.ones(2)}, "holds more.weight, which that network lacks"),
        ({"dense.0.weight": torch.ones(2, 3)}, r"holds dense.0.weight of \[2, 3\], which is \[512, \d+\] there"),
        ({"dense.0.weight": "text"}, "holds no state_dict"),
        ({0: torch.ones(2)}, "holds no state_dict"),
    ],
)
def test_weights_that_do_not_fit(change: dict[Any, Any], message: str, tmp_path: Path) -> None:
    content: dict[Any, Any] = {**network().state_dict(), **change}
    torch.save({key: value for key, value in content.items() if value is not None}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        load_pretrained(network(), tmp_path / "weights.pth", "cnn")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "whole.pth")
    (tmp_path / name).write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    with pytest.raises(ValueError, match="is truncated, damaged or holds more than tensors"):
        load_pretrained(network(), tmp_path / name, "cnn")


def test_a_run_begins_with_them_and_resumes_without_the_file(tmp_path: Path, no_pictures: None) -> None:
    file = tmp_path / "weights.pth"
    weights = {"model__name": "cnn", "model__weights": str(file)}
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        fit(quick(tmp_path / "run", **weights))
    with pytest.raises(ValueError, match="expected a name that ends in"):
        fit(quick(tmp_path / "run", **{**weights, "model__weights": __file__}))
    torch.save(network(size=16).state_dict(), file)
    with pytest.raises(ValueError, match="expected the weights of the backbone cnn"):
        fit(quick(tmp_path / "run", **weights))
    assert not (tmp_path / "run").exists()
    given = network(dim=5, size=8).state_dict()
    torch.save(given, file)
    still = {"optim__epochs": 1, "optim__lr": 1e-12, "optim__weight_decay": 0.0}
    fit(quick(tmp_path / "run", **weights, **still))
    torch.testing.assert_close(state(tmp_path / "run")["backbone.dense.0.weight"], given["dense.0.weight"])
    file.unlink()
    fit(quick(tmp_path / "run", **weights, **still | {"optim__epochs": 2}, resume=str(tmp_path / "run")))
