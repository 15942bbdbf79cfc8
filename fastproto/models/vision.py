"""Classification networks of torchvision and timm, by their own names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

TIMM = "timm:"  # prefix of the names of timm's networks
# These two add a second output in training, and warn unless the initialisation is named.
_TWO_OUTPUTS = {"aux_logits": False, "init_weights": True}
_ARGUMENTS: dict[str, dict[str, Any]] = {"googlenet": _TWO_OUTPUTS, "inception_v3": _TWO_OUTPUTS}


class GreyAsRGB(nn.Module):
    """Repeat one channel three times for a network that reads RGB. [B, 1, H, W] -> [B, dim]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return features


def vision_names() -> list[str]:
    """Names of torchvision's classification networks; empty where torchvision is not installed."""
    try:
        models = import_module("torchvision.models")
    except ImportError:
        return []
    return sorted(models.list_models(module=models))


def build_vision(name: str, channels: int, image_size: int, dim: int) -> nn.Module:
    """Network ``name`` of torchvision with random weights and ``dim`` outputs.

    Raises ValueError if it cannot read pictures of this size or number of channels.
    """
    arguments = dict(_ARGUMENTS.get(name, {}))
    if name.startswith("vit_"):
        arguments["image_size"] = image_size
    elif name.startswith("maxvit"):
        arguments["input_size"] = (image_size, image_size)
    models = import_module("torchvision.models")

    def make() -> nn.Module:
        return cast(nn.Module, models.get_model(name, weights=None, num_classes=dim, **arguments))

    return _fitted(name, "torchvision", channels, image_size, [make])


def build_timm(name: str, channels: int, image_size: int, dim: int) -> nn.Module:
    """Network ``timm:NAME`` of timm with random weights and ``dim`` outputs.

    Raises:
        ImportError: timm is not installed.
        ValueError: no such network, or one that cannot read pictures of this size or number of channels.
    """
    try:
        timm = import_module("timm")
    except ImportError as error:
        raise ImportError(
            f"the backbone {name!r} needs timm, which is not installed: pip install 'fastproto[timm]'"
        ) from error
    own = name.removeprefix(TIMM)
    if not timm.is_model(own):
        close = get_close_matches(own, timm.list_models(), n=3)
        hint = (
            f"did you mean {', '.join(repr(TIMM + match) for match in close)}?" if close else "see timm.list_models()"
        )
        raise ValueError(f"unknown backbone {name!r}: {hint}")

    def make(**arguments: int) -> nn.Module:
        return cast(nn.Module, timm.create_model(own, pretrained=False, num_classes=dim, **arguments))

    # Transformers must be told a size that is not their own; convolutional networks must not be told any.
    return _fitted(name, "timm", channels, image_size, [make, partial(make, img_size=image_size)])


def _fitted(
    name: str, library: str, channels: int, image_size: int, makers: Sequence[Callable[[], nn.Module]]
) -> nn.Module:
    """The first network made that reads such pictures; the error is of the first that does not."""
    if channels not in (1, 3):
        raise ValueError(f"the backbone {name!r} of {library} got {channels} channels: give 1 or 3")
    failed: Exception | None = None
    for make in makers:
        try:
            network = make()
            _try_out(network, image_size)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            failed = failed or error
        else:
            return GreyAsRGB(network) if channels == 1 else network
    reason = str(failed).strip().partition("\n")[0]
    raise ValueError(
        f"the backbone {name!r} cannot read pictures of {image_size}x{image_size} ({reason}): "
        "give another image size, 224 as a rule, or another backbone"
    ) from failed


def _try_out(network: nn.Module, image_size: int) -> None:
    """Run the network on the meta device, without memory or arithmetic; raises what it raises for such a picture."""
    state = {key: value.to("meta") for key, value in network.state_dict().items()}
    # Evaluation mode: in training BatchNorm refuses a single picture whose last map is one pixel.
    network.eval()
    with torch.no_grad():
        functional_call(network, state, (torch.empty(1, 3, image_size, image_size, device="meta"),))
    network.train()
