"""Backbones by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from .resnet import CifarResNet, Shortcut
from .small import CNN, MLP
from .vision import TIMM, GreyAsRGB, build_timm, build_vision, vision_names

_Builder = Callable[[int, int, int], nn.Module]


def _cifar_resnet(depth: int, shortcut: Shortcut) -> _Builder:
    return lambda channels, image_size, dim: CifarResNet(depth, channels, dim, shortcut)


# Name -> (builder from channels, image_size, dim; smallest image size, at which every halving still has pixels left).
_OWN: dict[str, tuple[_Builder, int]] = {
    "mlp": (MLP, 1),
    "cnn": (CNN, 4),
    **{f"resnet{depth}": (_cifar_resnet(depth, "pad"), 8) for depth in (20, 32, 56)},
    **{f"resnet{depth}-conv": (_cifar_resnet(depth, "conv"), 8) for depth in (20, 32, 56)},
    **{f"resnet{depth}-hpn": (_cifar_resnet(depth, "conv3x3"), 8) for depth in (20, 32, 56)},
}


def backbone_names() -> list[str]:
    """Names that `build_backbone` knows: ours first, then torchvision's classification networks if it is installed."""
    return [*_OWN, *vision_names()]


def build_backbone(name: str, *, channels: int, image_size: int, dim: int, batchnorm: bool = False) -> nn.Module:
    """A network from floating [B, channels, image_size, image_size] to features [B, dim], without a final activation.

    Args:
        name: ``"mlp"``; ``"cnn"`` (small and quick on a CPU); ``"resnet20"``, ``"resnet32"``, ``"resnet56"`` (CIFAR
            ResNets, padded shortcut), the same with ``"-conv"`` (1x1 convolution as shortcut) or ``"-hpn"`` (3x3
            convolution, as in hyperspherical prototype networks); any classification network of torchvision by its own
            name; or ``"timm:NAME"``, a network of timm. All have random weights, and the last layer has ``dim``
            outputs. Grey pictures are repeated to 3 channels for networks of torchvision and timm.
        channels: of the pictures, at least 1 (1 or 3 for networks of torchvision and timm).
        image_size: height and width of the pictures, in pixels.
        dim: number of features, at least 2.
        batchnorm: end with ``BatchNorm1d(dim)``.

    Raises:
        ValueError: an unknown name, or sizes that the network cannot work with.
        ImportError: ``timm:NAME`` and timm is not installed.
    """
    for label, value, least in (("channels", channels, 1), ("image_size", image_size, 1), ("dim", dim, 2)):
        if value < least:
            raise ValueError(f"the backbone {name!r} got {label}={value}: give at least {least}")
    network = _network(name, channels, image_size, dim)
    if not batchnorm:
        return network
    return nn.Sequential(OrderedDict(network=network, norm=nn.BatchNorm1d(dim)))


def inner_network(backbone: nn.Module) -> nn.Module:
    """The network itself, without what :func:`build_backbone` has put before or behind it."""
    while isinstance(backbone, GreyAsRGB | nn.Sequential) and isinstance(getattr(backbone, "network", None), nn.Module):
        backbone = backbone.get_submodule("network")
    return backbone


def _network(name: str, channels: int, image_size: int, dim: int) -> nn.Module:
    if name in _OWN:
        builder, smallest = _OWN[name]
        if image_size < smallest:
            raise ValueError(
                f"the backbone {name!r} got image_size={image_size}: give at least {smallest}, or use 'mlp'"
            )
        return builder(channels, image_size, dim)
    if name.startswith(TIMM):
        return build_timm(name, channels, image_size, dim)
    if name in vision_names():
        return build_vision(name, channels, image_size, dim)
    raise ValueError(_unknown(name))


def _unknown(name: str) -> str:
    names = backbone_names()
    close = ", ".join(repr(match) for match in get_close_matches(name, names, n=3))
    hint = f"did you mean {close}? Or" if close else "give"
    others = "a classification network of torchvision"
    if not vision_names():
        others += " (which is not installed: pip install 'fastproto[train]')"
    return f"unknown backbone {name!r}: {hint} one of {', '.join(_OWN)} or {others}"
