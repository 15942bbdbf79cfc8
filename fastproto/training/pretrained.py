"""Pretrained weights of a backbone, from a local file. Nothing in the file is executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastproto.models import inner_network
from fastproto.support.array_files import check_torch_archive
from fastproto.support.checks import shape_of

State = dict[str, Tensor]
_WRAPPERS = ("state_dict", "model")  # keys under which training scripts save a state_dict
_COUNTER = "num_batches_tracked"  # of BatchNorm: files of old versions of torch lack it


def load_pretrained(backbone: nn.Module, path: str | os.PathLike[str], name: str) -> None:
    """Put pretrained weights into a backbone of :func:`fastproto.models.build_backbone`.

    The last layer keeps its random weights where the file has none of this shape.

    Args:
        path: a ``.pth``, ``.pt`` or ``.safetensors`` file with the ``state_dict`` of the network.
        name: of the backbone, for error messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or weights that do not fit.
    """
    network = inner_network(backbone)
    network.load_state_dict(fitting_state(network, path, name), strict=False)


def fitting_state(network: nn.Module, path: str | os.PathLike[str], name: str) -> State:
    """What :func:`load_pretrained` puts into ``network``, which may be on the meta device; raises what it raises."""
    given, own, last = read_state(path), network.state_dict(), f"{_last_layer(network)}."
    for key in given:
        if key not in own and not key.startswith(last):
            raise ValueError(_unfit(path, name, f"holds {key}, which that network lacks"))
    for key, tensor in own.items():
        if key.startswith(last) or key.endswith(_COUNTER):
            continue
        if key not in given:
            raise ValueError(_unfit(path, name, f"lacks {key}"))
        if given[key].shape != tensor.shape:
            raise ValueError(
                _unfit(path, name, f"holds {key} of {shape_of(given[key])}, which is {shape_of(tensor)} there")
            )
    fits = all(key in given and given[key].shape == own[key].shape for key in own if key.startswith(last))
    return {key: tensor for key, tensor in given.items() if fits or not key.startswith(last)}


def read_state(path: str | os.PathLike[str]) -> State:
    """The tensors of a file by name.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_pretrained`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights {path}; expected a .pth or .safetensors file: see model.weights")
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"model.weights is {path}; expected a name that ends in .pth, .pt or .safetensors")
    try:
        content: Any = _read(path)
    except Exception as error:  # a damaged archive, pickle, header or tensor, each with an error of its own
        raise ValueError(
            f"{path} is truncated, damaged or holds more than tensors; expected the state_dict of a network, saved by "
            "torch.save or safetensors"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(map(_is_weight, content.items())):
        raise ValueError(f"{path} holds no state_dict; expected tensors by the names of a network's weights")
    return content


def _is_weight(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    check_torch_archive(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _last_layer(network: nn.Module) -> str:
    """The name of the last module that has weights of its own."""
    last = ""
    for key, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            last = key
    return last


def _unfit(path: str | os.PathLike[str], name: str, reason: str) -> str:
    return f"{path} {reason}; expected the weights of the backbone {name}: name that network, or another file"
