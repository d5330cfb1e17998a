"""What a file of Flax has beside the classes of its network: layers as PyTorch has them, and how it is loaded."""

from collections.abc import Mapping

HEAD = '''"""{title} in Flax NNX, channels last: {origin}.

    model = load("{weights}")
    answer = model(pictures)  # of [n, {axes}, {channels}], float32{scaled}
"""

import json
{more}from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
'''

HELPERS: Mapping[str, str] = {
    "BatchNorm": '''class BatchNorm(nnx.Module):
    """As PyTorch's: the running variance is that of a sample, and the momentum the weight of the new batch."""

    def __init__(self, channels: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.momentum, self.epsilon = momentum, epsilon
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, var = self.mean[...], self.var[...]
        if not self.use_running_average:
            axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
            mean, var = x.mean(axes), x.var(axes)
            self.mean[...] += self.momentum * (mean - self.mean[...])
            self.var[...] += self.momentum * (var * count / (count - 1) - self.var[...])
        return (x - mean) * (self.scale[...] / jnp.sqrt(var + self.epsilon)) + self.bias[...]
''',
    "PReLU": '''class PReLU(nnx.Module):
    """A slope for each channel, or one for all."""

    def __init__(self, channels: int) -> None:
        self.weight = nnx.Param(jnp.full(channels, 0.25))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, self.weight[...] * x)
''',
    "linear": '''def linear(x: jax.Array, size: tuple[int, ...], align_corners: bool = True) -> jax.Array:
    """Linear interpolation along every spatial axis, with PyTorch's corners."""
    for axis, new in enumerate(size, start=1):
        old, place = x.shape[axis], jnp.arange(new)
        if align_corners:
            above, below = place * (old - 1), max(new - 1, 1)
        else:
            above, below = jnp.maximum((2 * place + 1) * old - new, 0), 2 * new
        low = above // below
        share = (above % below / below).astype(x.dtype).reshape(-1, *[1] * (x.ndim - axis - 1))
        high = jnp.minimum(low + 1, old - 1)
        x = (1 - share) * jnp.take(x, low, axis) + share * jnp.take(x, high, axis)
    return x
''',
    "nearest": '''def nearest(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """The nearest point along every spatial axis, as PyTorch counts."""
    for axis, new in enumerate(size, start=1):
        x = jnp.take(x, jnp.arange(new) * x.shape[axis] // new, axis)
    return x
''',
    "padded": '''def padded(x: jax.Array, amounts: tuple[int, ...], value: float = 0.0) -> jax.Array:
    """Before and after along each axis, one behind the other; cut off where below zero."""
    pairs = zip(amounts[::2], amounts[1::2])
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), [(before, after, 0) for before, after in pairs])
''',
    "instance_norm": '''def instance_norm(x: jax.Array, epsilon: float) -> jax.Array:
    """Each map of each example by its own statistics."""
    axes = tuple(range(1, x.ndim - 1))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(var + epsilon)
''',
}
"""By their names, in the order in which a file has them."""

ALIASES: Mapping[str, str] = {
    name: f"{name}: Callable[..., jax.Array] = nnx.{name}  # which has no types\n" for name in ("max_pool", "avg_pool")
}
"""The same, of constants."""

LOAD = '''NAMES = {{"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}}
DTYPES = {{"F64": jnp.float64, "F32": jnp.float32, "BF16": jnp.bfloat16, "F16": jnp.float16}}


def load(path: str) -> {title}:
    """The network in eval mode, with the weights of a .safetensors file under PyTorch's names."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    model = {title}(rngs=nnx.Rngs(0))
    for place, module in nnx.iter_modules(model):
        layer = "".join(f"{{str(part).removesuffix('_')}}." for part in place if part != "layers")
        for key, variable in vars(module).items():
            if not isinstance(variable, nnx.Variable):
                continue
            entry = header[layer + NAMES.get(key, key)]
            first, last = (start + offset for offset in entry["data_offsets"])
            value = jnp.frombuffer(data[first:last], DTYPES[entry["dtype"]]).reshape(entry["shape"])
            if key == "kernel" and isinstance(module, nnx.ConvTranspose):
                value = jnp.moveaxis(jnp.flip(value, range(2, value.ndim)), (0, 1), (-2, -1))
            elif key == "kernel":
                value = jnp.moveaxis(value, (0, 1), (-1, -2))
            variable.set_value(value)
    model.set_attributes(deterministic=True, use_running_average=True, raise_if_not_found=False)
    return model
'''
