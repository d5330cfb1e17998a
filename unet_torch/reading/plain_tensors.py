"""Tensors that code makes from plain numbers, such as amounts of padding, and branches on."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves


class PlainTensors(TorchFunctionMode):
    """While code is traced, compute with the tensors that it makes from plain numbers, instead of tracing them.

    So it can branch on their values, which depend on nothing that is traced. Tensors of traced sizes are left to the
    trace.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call the function, outside of the trace where nothing in it is traced."""
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        symbolic = any(isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool) for leaf in leaves)
        plain = all(id(tensor) in self._made for tensor in tensors)
        if symbolic or not plain or not (tensors or func in (torch.tensor, torch.as_tensor)):
            return func(*args, **kwargs)
        with _disable_current_modes():
            answer = func(*args, **kwargs)
        self._made |= {id(leaf): leaf for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)}
        return answer
