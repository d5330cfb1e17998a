"""The same random numbers for a module's own code and for the graph that was read from it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unet_torch.reading.program import UnreadableError

_ATEN = torch.ops.aten


class Draws:
    """Random numbers from 0 to 1, each draw known by its place in the order of all.

    Args:
        seed: the same seed is the same numbers.
        places: of the draws that are asked for, where others are made between them.
    """

    def __init__(self, seed: int, places: Sequence[int] | None = None) -> None:
        self.seed = seed
        self.places = places
        self.made = 0

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """The next draw, in float64."""
        place = self.made if self.places is None else self.places[self.made]
        self.made += 1
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + place)
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


class Drawn(TorchDispatchMode):
    """Lets code draw from `draws` where it would draw from torch's own generator."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Take the place of every operator that draws."""
        kwargs = kwargs or {}
        match func:
            case _ATEN.bernoulli_.float:
                return args[0].copy_(self._kept(args[0].shape, args[1] if len(args) > 1 else 0.5))
            case _ATEN.bernoulli.p:
                return self._kept(args[0].shape, args[1]).to(args[0].dtype)
            case _ATEN.bernoulli.default | _ATEN.bernoulli_.Tensor:
                probability = args[-1]
                kept = self._kept(args[0].shape, probability).to(args[0].dtype)
                return args[0].copy_(kept) if func is _ATEN.bernoulli_.Tensor else kept
            case _ATEN.uniform_.default:
                low, high = [*args[1:], 0.0, 1.0][:2] if len(args) != 2 else (args[1], 1.0)
                return args[0].copy_(low + (high - low) * self.draws(args[0].shape))
            case _ATEN.rand.default:
                return self.draws(args[0]).to(kwargs.get("dtype") or torch.get_default_dtype())
            case _ATEN.rand_like.default:
                return self.draws(args[0].shape).to(kwargs.get("dtype") or args[0].dtype)
        if torch.Tag.nondeterministic_seeded in func.tags and "scaled_dot_product" not in str(func):  # it draws above
            raise UnreadableError(f"it draws random numbers by {func}")
        return func(*args, **kwargs)

    def _kept(self, shape: Sequence[int], probability: Any) -> Tensor:
        return (self.draws(shape) >= 1 - probability).to(torch.float64)
