"""How the layers of a graph are made in PyTorch."""

from collections.abc import Mapping
from typing import Any

from conversion.exports.code.language import Hole, Layer, Made, Option, UnprintableError, call
from unet_core.graph.sizes import Shape


def same(numbers: tuple[Any, ...]) -> Any:
    """As one number where it is the same everywhere."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _unless(name: str, value: Any, default: Any) -> list[tuple[str, Any]]:
    return [] if value == default else [(name, value)]


def _bias(roles: Mapping[str, Shape]) -> list[tuple[str, Any]]:
    return _unless("bias", "bias" in roles, True)


def _width(roles: Mapping[str, Shape], axis: int, times: int = 1) -> int:
    return int(str(roles["weight"][axis])) * times


def _strided(number: Any) -> Any:
    return Option(number, "stride", "stride") if isinstance(number, int) else ("stride", number)


def _convolution(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    window = roles["weight"][2:]
    wide = Hole(_width(roles, 1, of["groups"]), "in_channels"), Hole(_width(roles, 0), "out_channels")
    more = [*_unless("padding", _padding(window, of), 0), *_unless("dilation", same(of["dilation"]), 1)]
    groups = Option(of["groups"], "groups", "groups")
    given = (*wide, str(same(window)), _strided(same(of["stride"])), *more, groups, *_bias(roles))
    return call(f"nn.Conv{len(window)}d", *given)


def _padding(window: Shape, of: Mapping[str, Any]) -> Any:
    if all(before == after for before, after in of["padding"]):
        return same(tuple(before for before, _ in of["padding"]))
    reach = [far * (int(str(size)) - 1) for size, far in zip(window, of["dilation"], strict=True)]
    if set(of["stride"]) != {1} or list(of["padding"]) != [(one // 2, one - one // 2) for one in reach]:
        raise UnprintableError("convolution that pads before otherwise than behind")
    return '"same"'


def _transposed(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    window = roles["weight"][2:]
    wide = Hole(_width(roles, 0), "in_channels"), Hole(_width(roles, 1, of["groups"]), "out_channels")
    more = [*_unless("padding", same(of["padding"]), 0), *_unless("output_padding", same(of["output_padding"]), 0)]
    groups = Option(of["groups"], "groups", "groups")
    last = [*_bias(roles), *_unless("dilation", same(of["dilation"]), 1)]
    given = (*wide, str(same(window)), _strided(same(of["stride"])), *more, groups, *last)
    return call(f"nn.ConvTranspose{len(window)}d", *given)


def _linear(_: int, roles: Mapping[str, Shape], __: Mapping[str, Any]) -> Made:
    return call(
        "nn.Linear", Hole(_width(roles, 1), "in_channels"), Hole(_width(roles, 0), "out_channels"), *_bias(roles)
    )


def _batch_norm(rank: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if of["frozen"]:
        raise UnprintableError("batch_norm that is frozen")
    return _norm(f"nn.BatchNorm{max(rank - 2, 1)}d", roles, of, momentum=0.1, affine=True)


def _instance_norm(rank: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    return _norm(f"nn.InstanceNorm{rank - 2}d", roles, of, momentum=0.1, affine=False)


def _norm(name: str, roles: Mapping[str, Shape], of: Mapping[str, Any], *, momentum: float, affine: bool) -> Made:
    """Of each channel; `affine` is the class's own default, which for statistics is the same."""
    if ("weight" in roles) != ("bias" in roles):
        raise UnprintableError(f"{name} with a weight alone, or a bias")
    channels = int(str(next(iter(roles.values()))[0]))
    more = [*_unless("eps", of["epsilon"], 1e-5), *_unless("affine", "weight" in roles, affine)]
    if "mean" in roles:
        more += _unless("momentum", of["momentum"], momentum)
    more += _unless("track_running_stats", "mean" in roles, affine)
    return call(name, Hole(channels, "channels"), *more)


def _group_norm(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    if "bias" not in roles:
        raise UnprintableError("group_norm without a bias")
    more = _unless("eps", of["epsilon"], 1e-5)
    return call("nn.GroupNorm", Hole(of["groups"], "groups"), Hole(_width(roles, 0), "channels"), *more)


def _layer_norm(_: int, roles: Mapping[str, Shape], of: Mapping[str, Any]) -> Made:
    shape = roles["weight"]
    wide = Hole(_width(roles, 0), "channels") if len(shape) == 1 else str(shape)
    return call("nn.LayerNorm", wide, *_unless("eps", of["epsilon"], 1e-5), *_bias(roles))


def _prelu(_: int, roles: Mapping[str, Shape], __: Mapping[str, Any]) -> Made:
    return call("nn.PReLU", Hole(_width(roles, 0), "channels"))


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
