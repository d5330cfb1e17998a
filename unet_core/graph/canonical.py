"""The canonical form: the flat `dict[str, np.ndarray]` under torch's names and layouts that both twins read and write.

Kernels are OIHW; the keys are those of the torch twin's `state_dict`, in forward order.
"""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import ml_dtypes
import numpy as np

from unet_core.config import Fit, UNetConfig
from unet_core.errors import CheckpointError, ConfigError, sized, some
from unet_core.graph import INPUT, Graph
from unet_core.graph.family import graph, graph_of
from unet_core.graph.node import Kind

Tensors = Mapping[str, np.ndarray]
Description = UNetConfig | Graph
"""What a network is: a config of this project's family, or the graph that was read from code."""

FLOATS = tuple(map(np.dtype, (np.float32, np.float64, ml_dtypes.bfloat16, np.float16)))
"""The dtypes that weights and running statistics may have; they are kept as they are."""
COUNTER = np.dtype(np.int64)
"""The dtype of `num_batches_tracked`, as in torch."""
_OTHERS = tuple(map(np.dtype, (np.int64, np.int32, np.uint8, np.bool_)))
"""Further dtypes that a buffer may have, such as a table of indices."""


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor of the canonical form must be."""

    shape: tuple[int, ...]
    layer: str
    """The layer it belongs to, e.g. `down1.conv.0`."""
    kind: Kind
    """What it is: a parameter, which an optimiser updates, a running statistic, a counter, or another buffer."""
    fan_in: int | None
    """Inputs to one output of the convolution it belongs to; None in BatchNorm, and where nothing is initialised."""

    @property
    def trained(self) -> bool:
        """Whether an optimiser updates it."""
        return self.kind == "parameter"

    @property
    def dtypes(self) -> tuple[np.dtype, ...]:
        """Those that it may have."""
        return {"counter": (COUNTER,), "buffer": (*FLOATS, *_OTHERS)}.get(self.kind, FLOATS)


def tensor_specs(config: Description) -> dict[str, TensorSpec]:
    """Every tensor of the network, in the order of the `state_dict` of its torch module, whose keys they have.

    Of a config, that is the forward order. Of a tensor that stands there under two names, the first.
    """
    network = graph_of(config)
    fans = {
        name: math.prod(network.tensors[node.tensors["weight"]].shape[1:])
        for node in network.nodes
        if node.operation in ("convolution", "transposed_convolution")
        for name in node.tensors.values()
    }
    return {
        name: TensorSpec(tensor.shape, name.rpartition(".")[0], tensor.kind, fans.get(name))
        for name, tensor in network.tensors.items()
        if tensor.same_as is None
    }


def named_by(layers: Mapping[str, str], config: UNetConfig) -> dict[str, str]:
    """What every tensor is called where its layers have these names, by the canonical name, in forward order."""
    return {key: f"{layers[spec.layer]}.{key.rpartition('.')[2]}" for key, spec in tensor_specs(config).items()}


def check_tensors(
    tensors: Tensors,
    config: Description,
    source: str,
    *,
    names: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
) -> None:
    """Hold `tensors` against the network that `config` describes.

    Args:
        names: what the file calls each tensor, by the canonical name, for the message.
        extra: the file's names of tensors that have no canonical name.

    Raises:
        CheckpointError: one line, naming `source` and listing every missing, extra and misshaped tensor and
            every one of a dtype that no checkpoint of this network has.
    """
    specs = tensor_specs(config)
    names = names or {}
    missing = [names.get(key, key) for key in specs if key not in tensors]
    extra = [*(key for key in tensors if key not in specs), *extra]
    both = [key for key in specs if key in tensors]
    misshaped = [
        f"{names.get(key, key)} is {_shape(tensors[key].shape)}, not {_shape(specs[key].shape)}"
        for key in both
        if tensors[key].shape != specs[key].shape
    ]
    mistyped = [
        f"{names.get(key, key)} is {tensors[key].dtype}" for key in both if tensors[key].dtype not in specs[key].dtypes
    ]
    problems = [
        f"{word}: {some(found, most=500)}"
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
            f"{source}: the tensors are not those of {config.title}, {config.in_channels} channels in and "
            f"{config.out_channels} out: {'; '.join(problems)}"
        )


def contiguous(tensor: np.ndarray) -> np.ndarray:
    """The same tensor in C order; a number stays one, of which `np.ascontiguousarray` makes a row."""
    return np.ascontiguousarray(tensor).reshape(tensor.shape)


def under_one_name(tensors: Tensors, config: Description, source: str) -> dict[str, np.ndarray]:
    """The tensors of a state_dict, without the later names of those that stand there under several.

    Raises:
        CheckpointError: under two names of one tensor there are two.
    """
    if not isinstance(config, Graph):
        return dict(tensors)
    again = {name: tensor.same_as for name, tensor in config.tensors.items() if tensor.same_as in tensors}
    apart = [name for name, first in again.items() if name in tensors and differ(tensors[name], tensors[str(first)])]
    if apart:
        raise CheckpointError(f"{source}: is one tensor in the network, but two here: {some(apart)}")
    return {name: value for name, value in tensors.items() if name not in again}


def under_all_names(tensors: Tensors, config: Description) -> dict[str, np.ndarray]:
    """The inverse of `under_one_name`, in the order of the state_dict; what has several names is one array there."""
    if not isinstance(config, Graph):
        return dict(tensors)
    first = {name: tensor.same_as or name for name, tensor in config.tensors.items()}
    return {name: tensors[key] for name, key in first.items() if key in tensors}


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tensors are not the same in every bit."""
    return one.dtype != other.dtype or one.shape != other.shape or one.tobytes() != other.tobytes()


def in_forward_order(tensors: Tensors, config: Description) -> dict[str, np.ndarray]:
    """The same tensors in the order of `tensor_specs`, which is that of torch's `state_dict`."""
    return {key: tensors[key] for key in tensor_specs(config)}


def infer_config(shapes: Mapping[str, tuple[int, ...]], source: str) -> UNetConfig:
    """Read the config off the tensors' shapes, for a file that stores none.

    Each width is what most of its tensors say, so that a missing or misshaped tensor among them is found by
    `check_tensors` and named there. What no shape tells (`align_corners`, `skip_first`, `fit`, `output`, BatchNorm's
    constants) takes its default.

    Raises:
        CheckpointError: the keys are not those of this network.
    """
    levels = {int(match[2]) for key in shapes if (match := re.match(r"(down|up)(\d{1,2})\.(conv|up)\.", key))}
    depth = max(levels, default=0)
    if depth == 0 or not any(key.startswith("bottom.conv.") for key in shapes):
        found = some(shapes) or "there are none"
        raise CheckpointError(
            f"{source}: these are not the tensors of this UNet (down1.conv.0.weight ... out.bias): {found}"
        )

    def width(layers: tuple[str, ...], *, axis: int = 0) -> int | None:
        """Channels on `axis` of what most tensors of these layers say; None where there is no such tensor."""
        found = [shape[axis] for key, shape in shapes.items() if key.rpartition(".")[0] in layers and len(shape) > axis]
        return Counter(found).most_common(1)[0][0] if found else None

    features = []
    for block in [f"down{level}" for level in range(1, depth + 1)] + ["bottom"]:
        channels = width(tuple(f"{block}.conv.{place}" for place in (0, 1, 3, 4)))
        if channels is None:
            raise CheckpointError(f"{source}: no tensor of {block} is there to tell its width")
        features.append(channels)
    encoder = features[:-1]
    blocks = [f"up{level}" for level in range(1, depth + 1)]
    after = [
        width((f"{block}.conv.3", f"{block}.conv.4")) or default for block, default in zip(blocks, encoder, strict=True)
    ]
    middle = [
        width((f"{block}.conv.0", f"{block}.conv.1")) or default for block, default in zip(blocks, after, strict=True)
    ]
    transposed = any(re.match(r"up\d{1,2}\.up\.", key) for key in shapes)
    raised = [width((f"{block}.up",), axis=1) or default for block, default in zip(blocks, encoder, strict=True)]
    return UNetConfig(
        in_channels=width(("down1.conv.0",), axis=1) or UNetConfig.in_channels,
        out_channels=width(("out",)) or UNetConfig.out_channels,
        features=tuple(features),
        upsampling="transposed" if transposed else "bilinear",
        conv_bias=any(re.fullmatch(r"\w+\.conv\.[03]\.bias", key) for key in shapes),
        decoder_features=tuple(after),
        middle_features=tuple(middle),
        upsampled_features=tuple(raised) if transposed else None,
    )


def config_of(network: Graph) -> UNetConfig | None:
    """The config of which this is the graph, whatever its nodes are called; None where it is that of no config."""
    norm = next((node for node in network.nodes if node.operation in ("batch_norm", "group_norm")), None)
    if norm is None or norm.attributes.get("momentum", 0.0) is None:
        return None
    known: dict[str, Any] = {"output": network.output, "norm_epsilon": norm.attributes["epsilon"]}
    if norm.operation == "batch_norm":
        known["norm_momentum"] = norm.attributes["momentum"]
    else:
        known |= {"norm": "group", "norm_groups": norm.attributes["groups"]}
    named = _numbered(network)
    try:
        config = infer_config({name: tensor.shape for name, tensor in network.tensors.items()}, "the graph")
        kinds = ("bilinear", "nearest") if config.upsampling == "bilinear" else (config.upsampling,)
        for corners, first, fit, kind in itertools.product((True, False), (True, False), get_args(Fit), kinds):
            choices = {"align_corners": corners, "skip_first": first, "fit": fit, "upsampling": kind}
            variant = dataclasses.replace(config, **known, **choices)
            if _numbered(graph(variant)) == named:
                return variant
    except (CheckpointError, ConfigError):
        return None
    return None


def _numbered(network: Graph) -> Graph:
    """The same graph, its nodes named by their places."""
    names = {INPUT: INPUT, **{node.name: str(number) for number, node in enumerate(network.nodes)}}
    nodes = (
        dataclasses.replace(node, name=names[node.name], inputs=tuple(names[name] for name in node.inputs))
        for node in network.nodes
    )
    return dataclasses.replace(network, nodes=tuple(nodes))


def _shape(shape: tuple[int, ...]) -> str:
    return sized(shape) or "a scalar"
