"""Seeds of `nnx.Rngs` to the initialisation that both twins share."""

from numbers import Integral
from typing import Any

import jax
import numpy as np
from flax import nnx

from unet_core.config import UNetConfig
from unet_core.graph import initial
from unet_core.graph.canonical import tensor_specs


def initial_tensors(config: UNetConfig, rngs: nnx.Rngs | jax.Array | int) -> dict[str, Any]:
    """Every tensor of a new network, under canonical names, in torch's layouts, drawn in NumPy.

    A key made from a seed holds that seed's bits, so `nnx.Rngs(seed)` draws what `seed` draws; each further network
    from the same `rngs` draws anew. Under a transformation (`nnx.eval_shape`, `jit`) the key is not known yet: the
    draw is then a callback to the host.

    Raises:
        ValueError: a seed out of range.
    """
    if isinstance(rngs, Integral):
        return initial.initial_tensors(config, initial.check_seed(int(rngs)))
    rngs = rngs if isinstance(rngs, nnx.Rngs) else nnx.Rngs(rngs)
    stream = rngs.params
    draw = stream.count[...]
    words = jax.random.key_data(stream.key[...])
    stream()
    if not isinstance(words, jax.core.Tracer):
        return initial.initial_tensors(config, _seed(words), int(draw))
    specs = tensor_specs(config)
    drawn = {key: spec for key, spec in specs.items() if spec.fan_in is not None}
    values = jax.pure_callback(
        lambda words, draw: {
            key: initial.initial_tensor(key, spec, _seed(words), int(draw)) for key, spec in drawn.items()
        },
        {key: jax.ShapeDtypeStruct(spec.shape, np.float32) for key, spec in drawn.items()},
        words,
        draw,
        vmap_method="sequential",
    )
    return {key: values[key] if key in drawn else initial.initial_tensor(key, spec, 0) for key, spec in specs.items()}


def _seed(words: Any) -> int:
    high, low = (int(word) for word in np.asarray(words).reshape(-1)[:2])
    return high << 32 | low
