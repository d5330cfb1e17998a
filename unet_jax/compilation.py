"""How the network's programs are compiled on a platform."""

import functools
import re

import jax
from jax.errors import JaxRuntimeError

_CPU = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""XLA's newer library for CPUs (YNNPACK) takes the sums, not the convolutions: of these, the gradients above all are
faster as XLA has them itself (docs/performance.md)."""

_TF32 = 8.0
"""The compute capability that has it."""


def has_tf32(device: jax.Device) -> bool:
    """Whether it is a GPU whose float32 products may be taken in TF32; AMD's have no such number."""
    capability = re.fullmatch(r"\d+\.\d+", str(getattr(device, "compute_capability", "")))
    return device.platform == "gpu" and capability is not None and float(capability[0]) >= _TF32


@functools.cache
def compiler_options(platform: str, *, wide: bool = False) -> dict[str, str] | None:
    """What `jax.jit` is given as its `compiler_options` for `platform` ("cpu", "gpu", "tpu").

    None where there is nothing to ask for, where this version of XLA does not know the option, or where the program
    is `wide`, in float64: with the option its convolutions would take thirty times as long.
    """
    if platform != "cpu" or wide:
        return None
    probe = jax.ShapeDtypeStruct((), "float32", sharding=jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0]))
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU).lower(probe).compile()
    except JaxRuntimeError as error:
        if "compile option" in str(error):
            return None
        raise
    return _CPU
