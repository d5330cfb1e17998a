"""Products of matrices, and attention."""

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_torch.operations.chance import dropped
from unet_torch.operations.rows import Run, named


def linear(x: Tensor, *, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor) -> Tensor:
    return torch.matmul(x, y)


def einsum(x: Tensor, *more: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, x, *more)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    rate: float = 0.0,
    run: Run,
) -> Tensor:
    if not rate:
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)
    # torch draws the dropped weights itself: here they are the output for one value each
    of_each = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device)
    of_each = of_each.expand(*value.shape[:-2], *of_each.shape)
    weights = F.scaled_dot_product_attention(query, key, of_each, mask, is_causal=causal, scale=scale)
    return dropped(weights, weights.shape, rate, run) @ value


ROWS = named(linear, matmul, einsum, attention)
