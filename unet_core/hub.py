"""The hub: the flat `dict[str, np.ndarray]` under torch's names and layouts that both twins read and write.

Kernels are OIHW; the keys are those of the torch twin's `state_dict`, in forward order.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from unet_core.config import UNetConfig
from unet_core.errors import CheckpointError, some

Tensors = Mapping[str, np.ndarray]

FLOATS = tuple(map(np.dtype, (np.float32, np.float64, ml_dtypes.bfloat16, np.float16)))
"""The dtypes that weights and running statistics may have; they are kept as they are."""
COUNTER = np.dtype(np.int64)
"""The dtype of `num_batches_tracked`, as in torch."""


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor of the hub must be."""

    shape: tuple[int, ...]
    layer: str
    """The layer it belongs to, e.g. `down1.conv.0`."""
    trained: bool
    """True for what an optimiser updates, False for BatchNorm's statistics."""
    fan_in: int | None
    """Inputs to one output of the convolution it belongs to; None in BatchNorm."""


def tensor_specs(config: UNetConfig) -> dict[str, TensorSpec]:
    """Every tensor of the network, in forward order: the keys of the torch twin's `state_dict`."""
    specs: dict[str, TensorSpec] = {}
    for block, before, after in (*config.encoder_blocks, *config.decoder_blocks):
        for convolution, channels in ((0, before), (3, after)):
            layer = f"{block}.conv.{convolution}"
            specs[f"{layer}.weight"] = TensorSpec((after, channels, 3, 3), layer, True, 9 * channels)
            layer = f"{block}.conv.{convolution + 1}"
            for name in ("weight", "bias"):
                specs[f"{layer}.{name}"] = TensorSpec((after,), layer, True, None)
            for name, shape in (("running_mean", (after,)), ("running_var", (after,)), ("num_batches_tracked", ())):
                specs[f"{layer}.{name}"] = TensorSpec(shape, layer, False, None)
    first, last = config.features[0], config.out_channels
    specs["out.weight"] = TensorSpec((last, first, 1, 1), "out", True, first)
    specs["out.bias"] = TensorSpec((last,), "out", True, first)
    return specs


def check_tensors(tensors: Tensors, config: UNetConfig, source: str) -> None:
    """Hold `tensors` against the network that `config` describes.

    Raises:
        CheckpointError: one line, naming `source` and listing every missing, extra and misshaped tensor and
            every one of a dtype that no checkpoint of this network has.
    """
    specs = tensor_specs(config)
    missing = [key for key in specs if key not in tensors]
    extra = [key for key in tensors if key not in specs]
    both = [key for key in specs if key in tensors]
    misshaped = [
        f"{key} is {_shape(tensors[key].shape)}, not {_shape(specs[key].shape)}"
        for key in both
        if tensors[key].shape != specs[key].shape
    ]
    mistyped = [
        f"{key} is {tensors[key].dtype}"
        for key in both
        if tensors[key].dtype not in ((COUNTER,) if key.endswith("num_batches_tracked") else FLOATS)
    ]
    problems = [
        f"{word}: {', '.join(found)}"
        for word, found in (
            ("missing", missing),
            ("not of this network", extra),
            ("wrong shape", misshaped),
            ("wrong dtype", mistyped),
        )
        if found
    ]
    if problems:
        raise CheckpointError(
            f"{source}: the tensors are not those of a UNet with features {config.features}, "
            f"{config.in_channels} channels in and {config.out_channels} out: {'; '.join(problems)}"
        )


def in_forward_order(tensors: Tensors, config: UNetConfig) -> dict[str, np.ndarray]:
    """The same tensors in the order of `tensor_specs`, which is that of torch's `state_dict`."""
    return {key: tensors[key] for key in tensor_specs(config)}


def infer_config(shapes: Mapping[str, tuple[int, ...]], source: str) -> UNetConfig:
    """Read the config off the tensors' shapes, for a file that stores none.

    Each width is what most of its level's tensors say, so that a missing or misshaped tensor among them is found by
    `check_tensors` and named there. What no shape tells (`align_corners`, `skip_first`, BatchNorm's constants) takes
    its default.

    Raises:
        CheckpointError: the keys are not those of this network.
    """
    levels = {int(match[2]) for key in shapes if (match := re.match(r"(down|up)(\d{1,2})\.conv\.", key))}
    depth = max(levels, default=0)
    if depth == 0 or not any(key.startswith("bottom.conv.") for key in shapes):
        found = some(shapes) or "there are none"
        raise CheckpointError(
            f"{source}: these are not the tensors of this UNet (down1.conv.0.weight ... out.bias): {found}"
        )
    features = []
    for level in range(1, depth + 2):
        blocks = (f"down{level}", f"up{level}") if level <= depth else ("bottom",)
        widths = [
            shape[0]
            for key, shape in shapes.items()
            if shape and key.split(".")[0] in blocks and not key.endswith("num_batches_tracked")
        ]
        if not widths:
            raise CheckpointError(f"{source}: no tensor of {' or '.join(blocks)} is there to tell its width")
        features.append(_most_common(widths))
    first = shapes.get("down1.conv.0.weight", ())
    heads = [shape[0] for key in ("out.bias", "out.weight") if (shape := shapes.get(key))]
    return UNetConfig(
        in_channels=first[1] if len(first) == 4 else UNetConfig.in_channels,
        out_channels=_most_common(heads) if heads else UNetConfig.out_channels,
        features=tuple(features),
    )


def _most_common(values: Iterable[int]) -> int:
    return Counter(values).most_common(1)[0][0]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
