"""The `state_dict` of a module that was pickled whole, from what stands for it."""

from collections.abc import Iterator
from typing import Any

from unet_core.checkpoints.pickled.known import array_of
from unet_core.checkpoints.pickled.standins import Inert
from unet_core.checkpoints.pickled.tensors import StoredTensor

_PARTS = ("_parameters", "_buffers", "_modules")
"""What every `torch.nn.Module` has."""

_SCRIPT = "__torch__."
"""How TorchScript names the classes of its modules."""

_DEEPEST = 40
_MOST = 20_000


def is_module(value: object) -> bool:
    """Whether it stands for a module, or for a compiled one of TorchScript."""
    if not isinstance(value, Inert):
        return False
    attributes = value.attributes
    return value.name.startswith(_SCRIPT) or all(isinstance(attributes.get(part), dict) for part in _PARTS)


def class_of(module: Inert) -> str:
    """The name of its class; TorchScript mangles those that come twice."""
    if not module.name.startswith(_SCRIPT):
        return module.name
    parts = module.name.removeprefix(_SCRIPT).split(".")
    return f"{'.'.join(part for part in parts if not part.startswith('___torch_mangle'))} of TorchScript"


def state_dict_of(module: Inert) -> dict[str, StoredTensor]:
    """Its tensors, under the names and in the order of its `state_dict`.

    Raises:
        ValueError: it has more modules in it, or deeper ones, than any network.
    """
    return dict(_tensors(module, "", 0, [_MOST]))


def _tensors(module: Inert, prefix: str, depth: int, left: list[int]) -> Iterator[tuple[str, StoredTensor]]:
    left[0] -= 1
    if depth > _DEEPEST or left[0] < 0:
        raise ValueError("its modules are more, or deeper in one another, than any network's")
    attributes = module.attributes
    if module.name.startswith(_SCRIPT):
        own, inner = attributes, attributes
    else:
        passing = attributes.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        buffers = {name: value for name, value in attributes["_buffers"].items() if name not in passing}
        own, inner = {**attributes["_parameters"], **buffers}, attributes["_modules"]
    for name, value in own.items():
        tensor = tensor_of(value)
        if tensor is not None:
            yield f"{prefix}{name}", tensor
    for name, value in inner.items():
        if is_module(value):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1, left)


def tensor_of(value: Any) -> StoredTensor | None:
    """The tensor that a value is, or that it stands for."""
    return value if isinstance(value, StoredTensor) else array_of(value)
