"""Dropout, and code that draws random numbers itself."""

from collections.abc import Sequence
from typing import Any

import torch

from unet_core.graph.sizes import Dim
from unet_torch.reading.aten.rows import Number, row
from unet_torch.reading.aten.values import cast
from unet_torch.reading.program import Array, Constant, Map, Program, UnreadableError


def _dropout(kind: str, *names: str) -> None:
    @row(*names)
    def dropout(p: Program, x: Array, rate: Number, train: bool) -> Any:
        if not rate or (p.training and not train):
            return x
        always = train and not p.training
        return p.add("dropout", x, rate=rate, kind=kind, always=always)


_dropout("elements", "dropout")
_dropout("maps", "feature_dropout")


@row("alpha_dropout", "feature_alpha_dropout")
def alpha_dropout(p: Program, x: Array, rate: Number, train: bool) -> Array:
    """Nothing in eval mode."""
    if rate and train:
        raise UnreadableError(f"{p.place}: alpha dropout")
    return x


@row("rand", "rand_like")
def rand(p: Program, x: Array | None = None, size: Sequence[Dim] = (), dtype: torch.dtype | None = None) -> Array:
    """From 0 to 1."""
    return cast(p, p.add("chance", shape=size if x is None else x.shape), dtype)


@row("uniform")
def uniform(p: Program, x: Array, low: Number = 0.0, high: Number = 1.0) -> Map:
    """Between two numbers, in the shape of a map."""
    draws = p.add("chance", shape=x.shape)
    if high - low != 1:
        draws = p.add("multiply", draws, right=high - low)
    return p.add("add", draws, right=low) if low else draws


@row("bernoulli")
def bernoulli(p: Program, x: Array, rate: Any = None) -> Map:
    """1 with a probability, else 0."""
    if isinstance(rate, Constant):
        rate = rate.tensor.item()
    if not isinstance(rate, float):
        raise UnreadableError(f"{p.place}: random numbers whose probability is computed")
    return p.add("chance", shape=x.shape, probability=rate)
