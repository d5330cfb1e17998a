"""How the layers of a graph are made in Flax NNX, channels last."""

from collections.abc import Mapping
from typing import Any

from conversion.exports.code.language import Hole, Layer, Made, Option, UnprintableError, call
from unet_core.graph.sizes import Shape


def _convolution(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
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
    return call("nnx.Conv", ins, Hole(int(str(out)), "out_channels"), str(window), *more, ("rngs", "rngs"))


def _transposed(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
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
    return call("nnx.ConvTranspose", *given, padding, *dilation, *bias, ("rngs", "rngs"))


def _padding(padding: tuple[tuple[int, int], ...]) -> Any:
    """As one number where it is the same everywhere."""
    numbers = {number for pair in padding for number in pair}
    return numbers.pop() if len(numbers) == 1 else padding


def _linear(_: int, roles: Mapping[str, Shape], __: Mapping[str, Any]) -> Made:
    out, ins = (int(str(size)) for size in roles["weight"])
    bias = [] if "bias" in roles else [("use_bias", False)]
    return call("nnx.Linear", Hole(ins, "in_channels"), Hole(out, "out_channels"), *bias, ("rngs", "rngs"))


def _batch_norm(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if of["momentum"] is None or of["frozen"] or not {"weight", "bias", "mean"} <= roles.keys():
        raise UnprintableError("batch_norm without affine or statistics, frozen, or with a cumulative average")
    more = [("momentum", of["momentum"])] if of["momentum"] != 0.1 else []
    more += [("epsilon", of["epsilon"])] if of["epsilon"] != 1e-5 else []
    return call("BatchNorm", Hole(int(str(roles["weight"][0])), "channels"), *more, helper="BatchNorm")


def _affine(roles: Mapping[str, Shape]) -> list[Any]:
    return [] if "weight" in roles else [("use_scale", False), ("use_bias", False)]


def _instance_norm(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if "mean" in roles:
        raise UnprintableError("instance_norm with running statistics")
    return _norm("nnx.InstanceNorm", roles, of)


def _group_norm(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    return _norm("nnx.GroupNorm", roles, of, Hole(of["groups"], "groups"))


def _layer_norm(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if of["axes"] != 1:
        raise UnprintableError("layer_norm over several axes")
    return _norm("nnx.LayerNorm", roles, of)


def _norm(name: str, roles: Mapping[str, Shape], of: Mapping[str, Any], *more: Hole) -> Made:
    channels = Hole(int(str(roles["weight"][0])), "channels")
    exact = ("epsilon", of["epsilon"]), ("use_fast_variance", False)
    bias = [] if "bias" in roles else [("use_bias", False)]
    return call(name, channels, *more, *exact, *bias, ("rngs", "rngs"))


def _prelu(_: int, roles: Mapping[str, Shape], __: Mapping[str, Any]) -> Made:
    return call("PReLU", Hole(int(str(roles["weight"][0])), "channels"), helper="PReLU")


LAYERS: Mapping[str, Layer] = {
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
