"""The devices as a mesh, and which part of each array is on which of them. PyTorch has nothing to match.

| array | its axis | is split over |
|---|---|---|
| pictures `[accumulate, n, h, w, c]`, masks `[accumulate, n, h, w]`, volumes | `n` | `data` and `fsdp` |
| | `h` | `space` |
| kernels (4 axes or more): parameters, their gradients, moments and average | the last that `fsdp` divides | `fsdp` |
| everything else: vectors, running statistics, counters, rates, losses | | nothing: it is on every device |

XLA derives the rest of the program from these (GSPMD, Xu et al., arXiv:2105.04663): the sums behind the gradients and
BatchNorm's statistics, and, over `space`, the rows beyond its own that a device needs for a convolution. An upsampling
by products with matrices is cut into strips of rows before (`unet_jax.upsampled`): XLA would sum up whole maps.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import jax
from jax.lax import with_sharding_constraint
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from unet_core.errors import ConfigError
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.training.peaks import peak
from unet_core.training.train_config import Precision, TrainConfig
from unet_jax.training.layout import KERNEL

Axis = Literal["data", "fsdp", "space"]
AnyMesh = Mesh | AbstractMesh
"""Where the sizes alone count."""
AXES: tuple[Axis, ...] = get_args(Axis)
_EXAMPLES: tuple[Axis, ...] = ("data", "fsdp")
"""The axes over which a batch is split."""


def device_mesh(batch: int, sizes: str | None = None) -> Mesh:
    """All devices, in a mesh of `AXES`.

    Args:
        batch: examples in a batch.
        sizes: of the axes, as "data=4,fsdp=2,space=1". An axis that is left out has size 1, but for `data`, which then
            has the devices that the others leave; None: `data` has all.

    Raises:
        ConfigError: these are no sizes, or not of so many devices, or they do not divide the batch.
    """
    shape = shape_of(sizes, jax.device_count())
    parts = shape["data"] * shape["fsdp"]
    if batch % parts:
        raise ConfigError(f"batch {batch}: is not divided by the {parts} devices; give a multiple of {parts}")
    return mesh_of(shape)


def shape_of(sizes: str | None, count: int, owner: str = "JAX") -> dict[Axis, int]:
    """How many devices lie along each of `AXES`, in their order.

    Args:
        sizes: as `device_mesh` takes them.
        count: of all devices.
        owner: whose they are, for the message.

    Raises:
        ConfigError: these are no sizes, or not of so many devices.
    """
    given = {} if sizes is None else _parsed(sizes)
    rest = given.get("fsdp", 1) * given.get("space", 1)
    shape = {axis: given.get(axis, 1) for axis in AXES} | {"data": given.get("data", max(count // rest, 1))}
    needed = rest * shape["data"]
    if needed != count:
        has = f"{owner} has {count}; give sizes that make {count}"
        raise ConfigError(f"--mesh {sizes}: is of {needed} devices, and {has}")
    return shape


def mesh_of(shape: Mapping[Axis, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """These devices, or all that JAX has, in a mesh of this shape."""
    types = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(tuple(shape.values()), tuple(shape), axis_types=types, devices=devices)


def _parsed(sizes: str) -> dict[Axis, int]:
    found: dict[Axis, int] = {}
    for part in sizes.split(","):
        match = re.fullmatch(r"(\w+)=([1-9]\d{0,6})", part.strip())
        if match is None or match[1] not in AXES or match[1] in found:
            raise ConfigError(f"--mesh {sizes}: give each of {', '.join(AXES)} once at most, as data=4,fsdp=2,space=1")
        found[cast(Axis, match[1])] = int(match[2])
    return found


def check_rows(mesh: AnyMesh, train_config: TrainConfig, config: Description) -> None:
    """Raise ConfigError where some level of the network has rows that `space` does not divide.

    XLA would pad them, and a device without a row of its own computes in vain. Of a network that was read from code
    nobody knows its levels.
    """
    space = strips(mesh)
    if isinstance(config, Graph):
        if space > 1:
            raise ConfigError(
                f"--mesh space={space}: rows are shared for networks of this project's family alone; use data and fsdp"
            )
        return
    least = 2**config.depth
    if space > 1 and train_config.crops(config.dimensions)[0] % (space * least):
        raise ConfigError(
            f"crop {train_config.crop}: the {space} devices of space cannot share its rows evenly at all "
            f"{config.depth + 1} levels; give a multiple of {space * least}"
        )


def peak_of(mesh: Mesh, precision: Precision) -> float | None:
    """FLOP/s of all devices together; None where nobody knows. On a GPU JAX takes TF32 unless it is told otherwise."""
    tf32 = getattr(jax.config, "jax_default_matmul_precision", None) not in ("highest", "float32")
    one = peak(mesh.devices.flat[0].device_kind, precision, tf32=tf32)
    return None if one is None else one * mesh.size


def of_batch(mesh: AnyMesh) -> NamedSharding:
    """Of pictures and masks."""
    return NamedSharding(mesh, PartitionSpec(None, _there(mesh, _EXAMPLES), _there(mesh, ("space",))))


def share(mesh: Mesh, batch: int) -> tuple[int, int]:
    """Which part of a batch this process has to read for its devices, and how many such parts there are.

    Processes whose devices share the rows of the same pictures read the same part.
    """
    places = of_batch(mesh).addressable_devices_indices_map((1, batch, strips(mesh))).values()
    ends = [place[1].indices(batch)[:2] for place in places if place is not None]
    first, last = min(start for start, _ in ends), max(stop for _, stop in ends)
    length = last - first
    return (first // length, batch // length) if first % length == batch % length == 0 else (0, 1)


def strips(mesh: AnyMesh | None) -> int:
    """Parts of a picture's rows."""
    return 1 if mesh is None else mesh.shape.get("space", 1)


def everywhere(mesh: AnyMesh) -> NamedSharding:
    """Of what every device has a copy of."""
    return NamedSharding(mesh, PartitionSpec())


def of_state(mesh: AnyMesh, state: Any) -> Any:
    """Of every array of a state, or of a part of it, which are arrays or their shapes."""
    return jax.tree.map(lambda array: _of_array(mesh, array.shape), state)


def gathered(mesh: AnyMesh | None, parameters: Any) -> Any:
    """Whole on every device, to be computed with; within `jit`."""
    if mesh is None or _size(mesh) == 1:
        return parameters
    return with_sharding_constraint(parameters, everywhere(mesh))


def scattered(mesh: AnyMesh | None, gradients: Any) -> Any:
    """Each device's own part alone; within `jit`."""
    if mesh is None or _size(mesh) == 1:
        return gradients
    return with_sharding_constraint(gradients, of_state(mesh, gradients))


def _of_array(mesh: AnyMesh, shape: tuple[int, ...]) -> NamedSharding:
    divided = [axis for axis, length in enumerate(shape) if length % _size(mesh) == 0]
    if _size(mesh) == 1 or len(shape) < KERNEL or not divided:
        return everywhere(mesh)
    return NamedSharding(mesh, PartitionSpec(*(None,) * divided[-1], "fsdp"))


def _size(mesh: AnyMesh) -> int:
    """Devices over which parameters are split."""
    return mesh.shape.get("fsdp", 1)


def _there(mesh: AnyMesh, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Those that a mesh has; one of other code may have `data` alone."""
    return tuple(axis for axis in axes if axis in mesh.axis_names)
