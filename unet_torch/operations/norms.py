"""Normalisation."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from unet_torch.operations.rows import Run, named


def batch_norm(
    x: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    count: Tensor | None = None,
    epsilon: float,
    momentum: float | None,
    frozen: bool = False,
    run: Run,
) -> Tensor:
    tracks = run.training and not frozen and mean is not None and variance is not None
    of_batch = mean is None or (run.training and not frozen)
    if tracks and count is not None:
        count = count + 1
        run.track("count", count)
    if momentum is None:  # a cumulative average; without a counter torch keeps what it has
        momentum = 1 / float(count) if tracks and count is not None else 0.0
    return _tracked(
        run,
        mean,
        variance,
        lambda mean, variance: F.batch_norm(x, mean, variance, weight, bias, of_batch, momentum, epsilon),
        tracks=tracks,
    )


def instance_norm(
    x: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    count: Tensor | None = None,
    epsilon: float,
    momentum: float | None = None,
    run: Run,
) -> Tensor:
    of_batch = run.training or mean is None
    return _tracked(  # torch does not count these batches
        run,
        mean,
        variance,
        lambda mean, variance: F.instance_norm(x, mean, variance, weight, bias, of_batch, momentum or 0.0, epsilon),
        tracks=run.training and mean is not None,
    )


def group_norm(
    x: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, groups: int, epsilon: float
) -> Tensor:
    return F.group_norm(x, groups, weight, bias, epsilon)


def layer_norm(
    x: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, axes: int, epsilon: float
) -> Tensor:
    return F.layer_norm(x, x.shape[-axes:], weight, bias, epsilon)


def _tracked(
    run: Run,
    mean: Tensor | None,
    variance: Tensor | None,
    norm: Callable[[Tensor | None, Tensor | None], Tensor],
    *,
    tracks: bool,
) -> Tensor:
    """The output of a norm, which changes its statistics in place: those given stay as they are."""
    if not tracks or mean is None or variance is None:
        return norm(mean, variance)
    mean, variance = mean.detach().clone(), variance.detach().clone()
    y = norm(mean, variance)
    run.track("mean", mean)
    run.track("variance", variance)
    return y


ROWS = named(batch_norm, instance_norm, group_norm, layer_norm)
