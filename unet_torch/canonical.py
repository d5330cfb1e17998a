"""The PyTorch twin to and from the canonical form, whose names and layouts are torch's own."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from unet_core.graph.canonical import Tensors

_WRAPPERS: Mapping[str, str] = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",  # by name: importing it takes a second
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
}
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def as_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor's values, bit for bit; shares the memory where it can."""
    tensor = tensor.detach().cpu().resolve_neg()  # what torch has only marked as negated
    if tensor.dtype == torch.bfloat16:  # torch gives NumPy no bfloat16: pass the bits
        return tensor.view(torch.uint16).numpy().view(_BFLOAT16)
    return tensor.numpy()


def as_torch(array: np.ndarray, *, copy: bool = True) -> Tensor:
    """An array's values, bit for bit, in memory of its own; without `copy`, in the array's where torch can share."""
    owned = np.array(array, order="C", copy=None if array.flags.writeable and not copy else True)
    if owned.dtype.isbuiltin != 1:  # bfloat16 and the like: pass the bits
        return torch.from_numpy(owned.view(f"u{owned.itemsize}")).view(getattr(torch, owned.dtype.name))
    return torch.from_numpy(owned)


def to_canonical(model: nn.Module) -> dict[str, np.ndarray]:
    """The parameters and statistics of `model`, under the names of its `state_dict`; of what a wrapper wraps."""
    return {key: as_numpy(value) for key, value in unwrapped(model).state_dict().items()}


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`'s, DataParallel's and DistributedDataParallel's wrappers.

    Another class that holds its network as `module` is a network of its own: it may do more than call that.
    """
    name = _WRAPPERS.get(f"{type(model).__module__}.{type(model).__qualname__}")
    inner = model._modules[name] if name else None
    return model if inner is None else unwrapped(inner)


def fill(model: nn.Module, tensors: Tensors) -> None:
    """Give `model` these parameters and statistics, their dtypes included.

    Raises:
        RuntimeError: torch's own, where the keys or shapes are not the model's.
    """
    values: Mapping[str, Tensor] = {key: as_torch(value) for key, value in tensors.items()}
    model.load_state_dict(values, strict=True, assign=True)
