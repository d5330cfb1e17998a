"""How the layers of a graph are made in Flax NNX, channels last."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unet_core.errors import UNetError
from unet_core.graph import Graph, Node
from unet_core.graph.sizes import Shape


class UnprintableError(UNetError):
    """What this project has no code for.

    Args:
        what: the operation, or how it is used.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no code for {what}; ONNX and StableHLO may have a form for it")


@dataclass(frozen=True)
class Hole:
    """A number that may differ between the instances of a class."""

    value: int
    hint: str
    """What its parameter may be called."""


@dataclass(frozen=True)
class Option(Hole):
    """One that is a keyword, and left out where it is always the default."""

    keyword: str = ""
    default: int = 1


@dataclass(frozen=True)
class Made:
    """How a layer is made: a call with numbers in it."""

    parts: tuple[str | Hole, ...]
    helper: str = ""
    """The class of the file's own that it is of."""


def layer(graph: Graph, node: Node) -> Made:
    """How the layer of a node with tensors is made.

    Raises:
        UnprintableError: there is no code for it.
    """
    if node.operation not in LAYERS:
        raise UnprintableError(node.operation)
    roles = {role: graph.tensors[name].shape for role, name in node.tensors.items()}
    return LAYERS[node.operation](graph, roles, node.attributes)


def _call(name: str, *arguments: str | Hole | tuple[str, Any], helper: str = "") -> Made:
    """A call; pairs are keywords, whose values may be holes."""
    parts: list[str | Hole] = [f"{name}("]
    for number, argument in enumerate(arguments):
        if isinstance(argument, Option):
            parts.append(argument)
            continue
        if number:
            parts.append(", ")
        if isinstance(argument, tuple):
            parts += [f"{argument[0]}=", argument[1] if isinstance(argument[1], Hole) else str(argument[1])]
        else:
            parts.append(argument)
    return Made((*parts, ")"), helper)


def _convolution(_: Graph, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    weight = roles["weight"]
    out, window = weight[0], weight[2:]
    more: list[Any] = []
    if len(set(of["stride"])) == 1:
        more.append(Option(of["stride"][0], "stride", "strides"))
    else:
        more.append(("strides", of["stride"]))
    if any(map(any, of["padding"])):
        more.append(("padding", _padding(of["padding"])))
    elif set(window) != {1}:
        more.append(("padding", '"VALID"'))
    if set(of["dilation"]) != {1}:
        more.append(("kernel_dilation", of["dilation"]))
    if of["groups"] != 1:
        more.append(("feature_group_count", Hole(of["groups"], "groups")))
    if "bias" not in roles:
        more.append(("use_bias", False))
    ins = Hole(int(str(weight[1])) * of["groups"], "in_channels")
    return _call("nnx.Conv", ins, Hole(int(str(out)), "out_channels"), str(window), *more, ("rngs", "rngs"))


def _transposed(_: Graph, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    weight = roles["weight"]
    if of["groups"] != 1:
        raise UnprintableError("transposed_convolution in groups")
    window = weight[2:]
    ends = [
        (far * (int(str(size)) - 1) - pad, far * (int(str(size)) - 1) - pad + more)
        for size, pad, more, far in zip(window, of["padding"], of["output_padding"], of["dilation"], strict=True)
    ]
    more_: list[Any] = [] if window != of["stride"] or any(of["padding"]) or any(of["output_padding"]) else ['"VALID"']
    padding = ("padding", more_[0] if more_ and set(of["dilation"]) == {1} else _padding(tuple(ends)))
    dilation = [("kernel_dilation", of["dilation"])] if set(of["dilation"]) != {1} else []
    bias = [] if "bias" in roles else [("use_bias", False)]
    ins, out = Hole(int(str(weight[0])), "in_channels"), Hole(int(str(weight[1])), "out_channels")
    given = (ins, out, str(window), str(of["stride"]))
    return _call("nnx.ConvTranspose", *given, padding, *dilation, *bias, ("rngs", "rngs"))


def _padding(padding: tuple[tuple[int, int], ...]) -> Any:
    """As one number where it is the same everywhere."""
    numbers = {number for pair in padding for number in pair}
    return numbers.pop() if len(numbers) == 1 else padding


def _linear(_: Graph, roles: Mapping[str, Shape], __: Mapping[str, Any]) -> Made:
    out, ins = (int(str(size)) for size in roles["weight"])
    bias = [] if "bias" in roles else [("use_bias", False)]
    return _call("nnx.Linear", Hole(ins, "in_channels"), Hole(out, "out_channels"), *bias, ("rngs", "rngs"))


def _batch_norm(_: Graph, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if of["momentum"] is None or of["frozen"] or not {"weight", "bias", "mean"} <= roles.keys():
        raise UnprintableError("batch_norm without affine or statistics, frozen, or with a cumulative average")
    more = [("momentum", of["momentum"])] if of["momentum"] != 0.1 else []
    more += [("epsilon", of["epsilon"])] if of["epsilon"] != 1e-5 else []
    return _call("BatchNorm", Hole(int(str(roles["weight"][0])), "channels"), *more, helper="BatchNorm")


def _affine(roles: Mapping[str, Shape]) -> list[Any]:
    return [] if "weight" in roles else [("use_scale", False), ("use_bias", False)]


def _instance_norm(_: Graph, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if "mean" in roles:
        raise UnprintableError("instance_norm with running statistics")
    return _norm("nnx.InstanceNorm", roles, of)


def _group_norm(_: Graph, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    return _norm("nnx.GroupNorm", roles, of, Hole(of["groups"], "groups"))


def _layer_norm(_: Graph, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if of["axes"] != 1:
        raise UnprintableError("layer_norm over several axes")
    return _norm("nnx.LayerNorm", roles, of)


def _norm(name: str, roles: Mapping[str, Shape], of: Mapping[str, Any], *more: Hole) -> Made:
    channels = Hole(int(str(roles["weight"][0])), "channels")
    exact = ("epsilon", of["epsilon"]), ("use_fast_variance", False)
    bias = [] if "bias" in roles else [("use_bias", False)]
    return _call(name, channels, *more, *exact, *bias, ("rngs", "rngs"))


def _prelu(_: Graph, roles: Mapping[str, Shape], __: Mapping[str, Any]) -> Made:
    return _call("PReLU", Hole(int(str(roles["weight"][0])), "channels"), helper="PReLU")


LAYERS: Mapping[str, Callable[[Graph, Mapping[str, Shape], Mapping[str, Any]], Made]] = {
    "convolution": _convolution,
    "transposed_convolution": _transposed,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "prelu": _prelu,
}
"""What is made once, with tensors in it."""
