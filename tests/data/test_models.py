"""Backbones: output shapes at every sensible picture size, gradients, determinism, and errors for bad requests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from fastproto.models import backbone_names, build_backbone
from fastproto.models.resnet import CifarResNet, PaddedShortcut

DEPTHS = (20, 32, 56)
OWN = ["mlp", "cnn", *(f"resnet{depth}{variant}" for variant in ("", "-conv", "-hpn") for depth in DEPTHS)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: on a busy machine threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_names_hold_ours_first_and_torchvision_after() -> None:
    names = backbone_names()
    assert names[: len(OWN)] == OWN
    assert {"resnet18", "vit_b_16"} <= set(names)
    assert len(names) == len(set(names))
    assert not any("rcnn" in name or name.startswith(("fcn", "raft", "quantized", "r3d")) for name in names)


SHALLOW = [name for name in OWN if "32" not in name and "56" not in name]
SIZES = [(1, 8, 2), (1, 28, 9), (3, 32, 64), (3, 37, 5)]


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "dim"),
    [(name, *sizes) for name in SHALLOW for sizes in SIZES] + [(name, 3, 8, 4) for name in OWN if name not in SHALLOW],
)
def test_features_have_the_asked_shape(name: str, channels: int, image_size: int, dim: int) -> None:
    network = build_backbone(name, channels=channels, image_size=image_size, dim=dim)
    features = network(torch.rand(2, channels, image_size, image_size))
    assert features.shape == (2, dim)
    assert features.dtype == torch.float32
    assert bool(features.isfinite().all())


@pytest.mark.parametrize("name", SHALLOW)
def test_no_activation_last_and_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(name, channels=1, image_size=8, dim=32)
    features = network(torch.rand(8, 1, 8, 8))
    assert bool((features < 0).any()) and bool((features > 0).any())
    features.square().sum().backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


def test_same_seed_same_weights() -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_backbone("cnn", channels=1, image_size=8, dim=4)

    first, again, other = build(0).state_dict(), build(0).state_dict(), build(1).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["dense.3.weight"], other["dense.3.weight"])


@pytest.mark.parametrize(("depth", "paper"), [(20, 0.27e6), (32, 0.46e6), (56, 0.85e6)])
def test_cifar_resnets_have_the_parameters_of_the_paper(depth: int, paper: float) -> None:
    network = build_backbone(f"resnet{depth}", channels=3, image_size=32, dim=10)
    assert parameters(network) == pytest.approx(paper, rel=0.02)
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth


@pytest.mark.parametrize(("variant", "pixels"), [("conv", 1), ("hpn", 9)])
def test_convolutional_shortcuts_add_two_convolutions(variant: str, pixels: int) -> None:
    padded = build_backbone("resnet20", channels=3, image_size=32, dim=10)
    convolved = build_backbone(f"resnet20-{variant}", channels=3, image_size=32, dim=10)
    expected = sum(pixels * before * after + 2 * after for before, after in ((16, 32), (32, 64)))
    assert parameters(convolved) - parameters(padded) == expected


def test_padded_shortcut_takes_every_second_pixel_and_centres_the_channels() -> None:
    images = torch.rand(2, 4, 6, 6)
    out = PaddedShortcut(4, 8)(images)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:6], images[:, :, ::2, ::2])
    assert not bool(out[:, :2].any()) and not bool(out[:, 6:].any())


def test_convolutional_network_fits_its_depth_to_the_picture() -> None:
    depths = []
    for size in (4, 8, 16, 32, 64, 128):
        network = build_backbone("cnn", channels=1, image_size=size, dim=8)
        depths.append(sum(isinstance(module, nn.Conv2d) for module in network.modules()))
        assert network(torch.rand(2, 1, size, size)).shape == (2, 8)
    assert depths == [2, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_reads_grey_and_colour(channels: int) -> None:
    network = build_backbone("resnet18", channels=channels, image_size=32, dim=12)
    assert network.training
    assert network(torch.rand(2, channels, 32, 32)).shape == (2, 12)


def test_torchvision_network_with_two_outputs_gives_one() -> None:
    network = build_backbone("googlenet", channels=3, image_size=64, dim=6)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "channels", "image_size"),
    [("timm:resnet18", 3, 32), ("timm:resnet18", 1, 32), ("timm:vit_tiny_patch16_224", 3, 32)],
)
def test_networks_of_timm(name: str, channels: int, image_size: int) -> None:
    network = build_backbone(name, channels=channels, image_size=image_size, dim=6)
    assert network(torch.rand(2, channels, image_size, image_size)).shape == (2, 6)


def test_features_end_in_batch_normalisation_where_asked() -> None:
    network = build_backbone("cnn", channels=1, image_size=8, dim=6, batchnorm=True)
    features = network(torch.rand(16, 1, 8, 8))
    torch.testing.assert_close(features.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(0, unbiased=False), torch.ones(6), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("resnt20", {}, r"unknown backbone 'resnt20': did you mean 'resnet20'"),
        ("zzzzzz", {}, r"unknown backbone 'zzzzzz': give one of mlp, cnn"),
        ("cnn", {"dim": 1}, r"'cnn' got dim=1: give at least 2"),
        ("mlp", {"channels": 0}, r"'mlp' got channels=0: give at least 1"),
        ("cnn", {"image_size": 3}, r"'cnn' got image_size=3: give at least 4"),
        ("resnet20", {"image_size": 7}, r"'resnet20' got image_size=7: give at least 8"),
        ("alexnet", {"image_size": 16}, r"'alexnet' cannot read pictures of 16x16 .*another image size"),
        ("vit_b_16", {"image_size": 40}, r"'vit_b_16' cannot read pictures of 40x40"),
        ("resnet18", {"channels": 2}, r"'resnet18' of torchvision got 2 channels: give 1 or 3"),
        ("timm:resnet18", {"channels": 2}, r"'timm:resnet18' of timm got 2 channels: give 1 or 3"),
        ("timm:resnt18", {}, r"unknown backbone 'timm:resnt18': did you mean 'timm:resnet18'"),
        ("timm:zzzzzzzz", {}, r"unknown backbone 'timm:zzzzzzzz': see timm.list_models\(\)"),
    ],
)
def test_bad_requests_say_what_to_do(name: str, change: dict[str, int], words: str) -> None:
    sizes = {"channels": 3, "image_size": 32, "dim": 8} | change
    with pytest.raises(ValueError, match=words):
        build_backbone(name, **sizes)


def test_depth_of_a_cifar_resnet_must_fit() -> None:
    with pytest.raises(ValueError, match=r"depth 21: give 6n \+ 2"):
        CifarResNet(21, channels=3, dim=10)


def test_without_torchvision_ours_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert backbone_names() == OWN
    assert build_backbone("cnn", channels=1, image_size=8, dim=4) is not None
    with pytest.raises(ValueError, match=r"pip install 'fastproto\[train\]'"):
        build_backbone("resnet18", channels=3, image_size=32, dim=8)


def test_without_timm_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"needs timm.* pip install 'fastproto\[timm\]'"):
        build_backbone("timm:resnet18", channels=3, image_size=32, dim=8)
