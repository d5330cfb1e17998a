"""One initialisation for both twins, drawn in NumPy: the same seed is the same network, bit for bit."""

import hashlib
from numbers import Integral

import numpy as np

from unet_core.config import UNetConfig
from unet_core.graph.canonical import COUNTER, TensorSpec, tensor_specs

SEEDS = range(2**32)
"""The seeds that both frameworks can tell apart (a JAX key keeps 32 bits unless x64 is enabled)."""


def check_seed(seed: int) -> int:
    """`seed` as an int; ValueError where it is out of range."""
    if not isinstance(seed, Integral) or int(seed) not in SEEDS:
        raise ValueError(f"a seed is a whole number from 0 to {SEEDS[-1]}, got {seed!r}")
    return int(seed)


def initial_tensor(name: str, spec: TensorSpec, seed: int, draw: int = 0) -> np.ndarray:
    """The starting value of one tensor, float32 (the batch counter int64).

    Convolutions follow torch's default (torch/nn/modules/conv.py, `reset_parameters`): U(-b, b) with
    b = 1/sqrt(fan_in), for kernels and biases alike. Each tensor has a stream of its own, keyed by its name, so it does
    not depend on which other tensors the network has. `draw` counts networks made from one seed.
    """
    if spec.fan_in is not None:
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(draw, key))))
        unit = stream.random(spec.shape, np.float32)
        return (unit * np.float32(2) - np.float32(1)) * np.float32(1 / np.sqrt(spec.fan_in))
    if name.endswith("num_batches_tracked"):
        return np.zeros(spec.shape, COUNTER)
    ones = name.endswith((".weight", ".running_var"))
    return np.full(spec.shape, 1 if ones else 0, np.float32)


def initial_tensors(config: UNetConfig, seed: int, draw: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of a new network, under canonical names, in torch's layouts; see `initial_tensor`."""
    return {name: initial_tensor(name, spec, seed, draw) for name, spec in tensor_specs(config).items()}
