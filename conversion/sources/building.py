"""Building a module from a class and arguments that nobody vouches for, and giving it its weights."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from conversion.sources.configs import check_arguments
from conversion.sources.packages import quiet
from unet_core.errors import CheckpointError, first_line, some

_MOST_STEPS = 20_000
"""Operations in a constructor; one of a hundred layers has about a thousand."""

_MORE = 10
"""How many times the numbers of the file a constructor may ask for: layers that are replaced are made twice."""

_SPARE = 10_000_000
"""Numbers that it may ask for besides."""

_NAMES = ("state_dict", "model_state_dict", "model", "net", "network", "network_weights")
"""The keys under which scripts put the weights of the one network."""

_WRAPPERS = ("module.", "_orig_mod.")


class _Bounded(TorchDispatchMode):
    """Stops a constructor that would not end, or that asks for far more numbers than the file holds."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.steps, self.numbers = _MOST_STEPS, numbers

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.steps -= 1
        wanted = [_count(arg) for arg in args]
        if not any(isinstance(arg, Tensor) for arg in args):
            self.numbers -= max(wanted, default=0)
        if self.steps < 0 or self.numbers < max(wanted, default=0):
            raise CheckpointError("the network that it describes is far larger than its weights")
        return func(*args, **(kwargs or {}))


def _count(arg: object) -> int:
    """How many numbers an argument may ask for."""
    if isinstance(arg, list | tuple) and all(isinstance(size, int) for size in arg):
        return math.prod(size for size in arg if size > 0)
    return arg if isinstance(arg, int) else 0


def built(
    factory: Callable[..., nn.Module],
    arguments: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    plain: bool = True,
) -> nn.Module:
    """The module of a class, with these weights, in eval mode.

    Args:
        factory: the class.
        arguments: plain values, or classes that were looked up before.
        tensors: the weights, by the names of its `state_dict`.
        source: for the message.
        plain: refuse arguments that are no plain values.

    Raises:
        CheckpointError: the class refuses the arguments, asks for far more than `tensors` fill, or has other tensors;
            all of them are listed.
    """
    if plain:
        check_arguments({name: item for name, item in arguments.items() if not isinstance(item, type)}, source)
    mode = _Bounded(_MORE * sum(value.numel() for value in tensors.values()) + _SPARE)
    try:
        with quiet(), torch.random.fork_rng(devices=[]), mode:
            module = factory(**arguments)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except Exception as error:  # whatever a constructor makes of arguments that it was not written for
        name = getattr(factory, "__name__", "the class")
        raise CheckpointError(f"{source}: {name} cannot be built with these arguments: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise CheckpointError(f"{source}: names a {type(module).__name__}, not a network")
    fill(module, tensors, source)
    return module.eval()


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give a module these weights, their dtypes included, by its own `load_state_dict`.

    Raises:
        CheckpointError: names or shapes are not the module's, or one tensor of it is two in the file.
    """
    own: dict[str, Tensor] = module.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    apart = [
        name
        for name, tensor in own.items()
        if name in tensors and not _same(tensors[first.setdefault(id(tensor), name)], tensors[name])
    ]
    if apart:
        raise CheckpointError(f"{source}: one tensor in the network, but two in the file: {some(apart)}")
    try:
        for name, tensor in own.items():
            if name in tensors and tensor.dtype != tensors[name].dtype:
                tensor.data = tensor.data.to(tensors[name].dtype)
        module.load_state_dict(dict(tensors), strict=True)
    except Exception as error:  # a RuntimeError that lists the names line by line, or what a module's own hook meets
        raise CheckpointError(f"{source}: {_differences(own, tensors) or first_line(error)}") from error


def input_of(module: nn.Module, source: str) -> tuple[int, int]:
    """Channels and dimensions of a network's input, by its first convolution.

    Raises:
        CheckpointError: it has none.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            return part.in_channels, len(part.kernel_size)
    raise CheckpointError(f"{source}: its network has no convolution in 2-D or 3-D")


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


def _differences(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    misshaped = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    found = (
        ("missing", [name for name in own if name not in tensors]),
        ("not of this network", [name for name in tensors if name not in own]),
        ("wrong shape", misshaped),
    )
    problems = [f"{word}: {some(names, most=500)}" for word, names in found if names]
    return f"its weights are not those of the network that it names: {'; '.join(problems)}" if problems else ""


def weights_in(state: Mapping[Any, Any], source: str, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of the one network in a loaded file, wrappers taken off their names.

    Args:
        state: what the file holds.
        source: the file, for the message.
        key: where they lie, if that is known.

    Raises:
        CheckpointError: there are none, or something lies among them.
    """
    names = _NAMES if key is None else (key,)
    found: Mapping[Any, Any] = next((state[name] for name in names if isinstance(state.get(name), Mapping)), state)
    if key is not None and found is state:
        raise CheckpointError(f"{source}: lacks {key}")
    odd = [name for name, item in found.items() if not (isinstance(name, str) and isinstance(item, Tensor))]
    if odd or not found:
        raise CheckpointError(f"{source}: holds no weights, or others beside them: {some(odd) or 'nothing is in it'}")
    tensors: dict[str, Tensor] = dict(found)
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): item for name, item in tensors.items()}
    return tensors
