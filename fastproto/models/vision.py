"""Classification networks of torchvision, by their own names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
    if channels not in (1, 3):
        raise ValueError(f"the backbone {name!r} of torchvision got {channels} channels: give 1 or 3")
    arguments = dict(_ARGUMENTS.get(name, {}))
    if name.startswith("vit_"):
        arguments["image_size"] = image_size
    elif name.startswith("maxvit"):
        arguments["input_size"] = (image_size, image_size)
    try:
        network: nn.Module = import_module("torchvision.models").get_model(
            name, weights=None, num_classes=dim, **arguments
        )
        _try_out(network, image_size)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the backbone {name!r} cannot read pictures of {image_size}x{image_size} ({reason}): "
            "give another image size, 224 as a rule, or another backbone"
        ) from error
    return GreyAsRGB(network) if channels == 1 else network


def _try_out(network: nn.Module, image_size: int) -> None:
    """Run the network on the meta device, without memory or arithmetic; raises what it raises for such a picture."""
    state = {key: value.to("meta") for key, value in network.state_dict().items()}
    # Evaluation mode: in training BatchNorm refuses a single picture whose last map is one pixel.
    network.eval()
    with torch.no_grad():
        functional_call(network, state, (torch.empty(1, 3, image_size, image_size, device="meta"),))
    network.train()
