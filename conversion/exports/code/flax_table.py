"""What each operation without tensors is in JAX, channels last: an expression."""

from collections.abc import Mapping

from conversion.exports.code.language import Expression, Scope, UnprintableError
from unet_core.graph import Node


def _axis(scope: Scope, node: Node, axis: int) -> int:
    """In channels last."""
    rank = len(scope.graph.shapes[node.inputs[0]])
    if rank != scope.graph.dimensions + 2:
        raise UnprintableError(f"{node.operation} of what is no map")
    return (0, *range(2, rank), 1).index(axis % rank)


def _max_pool(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    if of["ceil"] or set(of["dilation"]) != {1}:
        raise UnprintableError("max_pool with ceil_mode or dilation")
    padding = f", {_pairs(of['padding'])}" if any(of["padding"]) else ""
    return f"{scope.helper('max_pool')}({inputs[0]}, {of['window']}, {of['stride']}{padding})"


def _average_pool(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    if of["ceil"] or of["divisor"] is not None:
        raise UnprintableError("average_pool with ceil_mode or a divisor")
    padding = f", {_pairs(of['padding'])}" if any(of["padding"]) else ""
    more = "" if of["count_padding"] or not padding else ", count_include_pad=False"
    return f"{scope.helper('avg_pool')}({inputs[0]}, {of['window']}, {of['stride']}{padding}{more})"


def _pairs(padding: tuple[int, ...]) -> str:
    return repr([(pad, pad) for pad in padding])


def _adaptive(_: Scope, node: Node, inputs: list[str]) -> str:
    if set(node.attributes["size"]) != {1}:
        raise UnprintableError("adaptive_average_pool to more than one point")
    axes = tuple(range(1, 1 + len(node.attributes["size"])))
    return f"jnp.mean({inputs[0]}, {axes}, keepdims=True)"


def _interpolate(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    if of["antialias"] or of["mode"] not in ("nearest", "linear"):
        raise UnprintableError(f"interpolate {of['mode']}{' with antialias' * of['antialias']}")
    if of["scale"] is not None:
        if of["size"] is not None or any(factor != int(factor) for factor in of["scale"]):
            raise UnprintableError("interpolate by factors that are no whole numbers")
        size = scope.sizes(
            tuple(
                length * int(factor)
                for length, factor in zip(scope.graph.shapes[node.inputs[0]][2:], of["scale"], strict=True)
            )
        )
    else:
        size = scope.sizes(of["size"])
    if of["mode"] == "nearest":
        return f"{scope.helper('nearest')}({inputs[0]}, {size})"
    corners = "" if of["align_corners"] else ", align_corners=False"
    return f"{scope.helper('linear')}({inputs[0]}, {size}{corners})"


def _pad(scope: Scope, node: Node, inputs: list[str]) -> str:
    amounts, mode = node.attributes["amounts"], node.attributes["mode"]
    modes = {"constant": "", "reflect": ', mode="reflect"', "replicate": ', mode="edge"', "circular": ', mode="wrap"'}
    order = (0, *range(2, len(amounts)), 1)
    if not all(isinstance(amount, int) and amount >= 0 for pair in amounts for amount in pair):
        flat = scope.sizes(tuple(amount for axis in order for amount in amounts[axis]))
        if mode != "constant":
            raise UnprintableError("pad with the map itself, by an amount that the picture decides")
        value = node.attributes["value"]
        return f"{scope.helper('padded')}({inputs[0]}, {flat}{f', {value}' if value else ''})"
    value = f", constant_values={node.attributes['value']}" if node.attributes["value"] else ""
    return f"jnp.pad({inputs[0]}, {tuple(amounts[axis] for axis in order)}{modes[mode]}{value})"


def _slice(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    axis = _axis(scope, node, of["axis"])
    ends = [end if isinstance(end, int) else scope.sizes((end,))[1:-2] for end in (of["start"], of["stop"])]
    step = f":{of['step']}" if of["step"] != 1 else ""
    return f"{inputs[0]}[{':, ' * axis}{ends[0] or ''}:{ends[1]}{step}]"


def _concatenate(scope: Scope, node: Node, inputs: list[str]) -> str:
    axis = _axis(scope, node, node.attributes["axis"])
    last = -1 if axis == scope.graph.dimensions + 1 else axis
    return f"jnp.concatenate([{', '.join(inputs)}], axis={last})"


def _reduction(function: str) -> Expression:
    def row(scope: Scope, node: Node, inputs: list[str]) -> str:
        of = node.attributes
        if not of["keep"]:
            raise UnprintableError(f"{node.operation} that keeps no axes")
        axes = of["axes"] if "axes" in of else (of["axis"],)
        found = tuple(sorted(_axis(scope, node, axis) for axis in axes))
        return f"{function}({inputs[0]}, {found if len(found) > 1 else found[0]}, keepdims=True)"

    return row


def _softmax(function: str) -> Expression:
    def row(scope: Scope, node: Node, inputs: list[str]) -> str:
        axis = _axis(scope, node, node.attributes["axis"])
        last = -1 if axis == scope.graph.dimensions + 1 else axis
        return f"{function}({inputs[0]}, axis={last})"

    return row


def _leaky(_: Scope, node: Node, inputs: list[str]) -> str:
    return f"nnx.leaky_relu({inputs[0]}, {node.attributes['slope']})"


def _norm_without_tensors(scope: Scope, node: Node, inputs: list[str]) -> str:
    return f"{scope.helper('instance_norm')}({inputs[0]}, {node.attributes['epsilon']})"


EXPRESSIONS: Mapping[str, Expression] = {
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "adaptive_average_pool": _adaptive,
    "interpolate": _interpolate,
    "pad": _pad,
    "slice": _slice,
    "concatenate": _concatenate,
    "mean": _reduction("jnp.mean"),
    "sum": _reduction("jnp.sum"),
    "amax": _reduction("jnp.max"),
    "softmax": _softmax("nnx.softmax"),
    "log_softmax": _softmax("nnx.log_softmax"),
    "leaky_relu": _leaky,
    "instance_norm": _norm_without_tensors,
    "clamp": lambda _, node, inputs: f"jnp.clip({inputs[0]}, {node.attributes['low']}, {node.attributes['high']})",
    "hardtanh": lambda _, node, inputs: f"jnp.clip({inputs[0]}, {node.attributes['low']}, {node.attributes['high']})",
    "gelu": lambda _, node, inputs: f"nnx.gelu({inputs[0]}, approximate={node.attributes['approximate']})",
}
"""Of anything."""

FUNCTIONS = {
    "relu": "nnx.relu",
    "sigmoid": "nnx.sigmoid",
    "tanh": "jnp.tanh",
    "silu": "nnx.silu",
    "softsign": "nnx.soft_sign",
    "log_sigmoid": "nnx.log_sigmoid",
    "exp": "jnp.exp",
    "log": "jnp.log",
    "sqrt": "jnp.sqrt",
    "absolute": "jnp.abs",
    "negative": "jnp.negative",
    "floor": "jnp.floor",
}
"""Of one array, and nothing else."""

ARITHMETIC = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "maximum": "jnp.maximum({}, {})",
    "minimum": "jnp.minimum({}, {})",
}
"""Of two."""
