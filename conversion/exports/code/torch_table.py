"""What each operation without tensors is in PyTorch: an expression, and what a sequence holds for it."""

import re
from collections.abc import Mapping

from conversion.exports.code.language import Expression, Scope, UnprintableError
from conversion.exports.code.torch_layers import same
from unet_core.graph import Node


def entry(text: str) -> str | None:
    """The module that computes what an expression of `x` does; None: there is none."""
    called = re.fullmatch(r"(?:F|torch)\.(\w+)\(x(?:, )?(.*)\)", text)
    if called is None or called[1] not in _MODULES or re.search(r"\bx\b", called[2]):
        return None
    return f"nn.{_MODULES[called[1]]}({called[2].removesuffix(', self.training')})"


def _called(function: str, *attributes: str, keyword: str = "") -> Expression:
    """A function of its inputs and some attributes, the last of which may be a keyword."""

    def row(_: Scope, node: Node, inputs: list[str]) -> str:
        values = [str(node.attributes[name]) for name in attributes]
        if keyword:
            values[-1] = f"{keyword}={values[-1]}"
        return f"{function}({', '.join([*inputs, *values])})"

    return row


def _joined(function: str) -> Expression:
    def row(_: Scope, node: Node, inputs: list[str]) -> str:
        return f"{function}([{', '.join(inputs)}], dim={node.attributes['axis']})"

    return row


def _rank(scope: Scope, node: Node) -> int:
    """The number of spatial axes."""
    return len(scope.graph.shapes[node.inputs[0]]) - 2


def _max_pool(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    more = [f"padding={same(of['padding'])}"] * any(of["padding"])
    more += [f"dilation={same(of['dilation'])}"] * (set(of["dilation"]) != {1}) + ["ceil_mode=True"] * of["ceil"]
    return f"F.max_pool{_rank(scope, node)}d({', '.join([*inputs, *_windows(node), *more])})"


def _average_pool(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    more = [f"padding={same(of['padding'])}"] * any(of["padding"]) + ["ceil_mode=True"] * of["ceil"]
    more += ["count_include_pad=False"] * (not of["count_padding"])
    more += [f"divisor_override={of['divisor']}"] * (of["divisor"] is not None)
    return f"F.avg_pool{_rank(scope, node)}d({', '.join([*inputs, *_windows(node), *more])})"


def _windows(node: Node) -> list[str]:
    """The window, and the stride where that is another."""
    window, stride = same(node.attributes["window"]), same(node.attributes["stride"])
    return [str(window)] + ([] if stride == window else [f"stride={stride}"])


def _adaptive(kind: str) -> Expression:
    def row(scope: Scope, node: Node, inputs: list[str]) -> str:
        size = node.attributes["size"]
        whole = str(same(size)) if all(isinstance(one, int) for one in size) else scope.sizes(size)
        return f"F.adaptive_{kind}_pool{_rank(scope, node)}d({inputs[0]}, {whole})"

    return row


def _interpolate(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    if of["scale"] is not None and of["size"] is not None:
        raise UnprintableError("interpolate to a size with other factors")
    ways = {1: "linear", 2: "bilinear", 3: "trilinear"}
    mode = {"linear": ways[_rank(scope, node)], "cubic": "bicubic"}.get(of["mode"], of["mode"])
    to = f"scale_factor={same(of['scale'])}" if of["scale"] is not None else f"size={scope.sizes(of['size'])}"
    more = [f'mode="{mode}"'] * (mode != "nearest") + ["align_corners=True"] * of["align_corners"]
    return f"F.interpolate({', '.join([inputs[0], to, *more, *['antialias=True'] * of['antialias']])})"


def _pad(scope: Scope, node: Node, inputs: list[str]) -> str:
    amounts, mode, value = (node.attributes[name] for name in ("amounts", "mode", "value"))
    kept = (
        list(amounts[2:]) if mode != "constant" or not any(n for pair in amounts[:2] for n in pair) else list(amounts)
    )
    flat = tuple(amount for pair in reversed(kept) for amount in pair)
    given = [inputs[0], str(flat) if all(isinstance(one, int) for one in flat) else scope.sizes(flat)]
    given += [f'mode="{mode}"'] * (mode != "constant") + [f"value={value}"] * bool(value)
    return f"F.pad({', '.join(given)})"


def _slice(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    axis = of["axis"] % len(scope.graph.shapes[node.inputs[0]])
    ends = [end if isinstance(end, int) else scope.sizes((end,))[1:-2] for end in (of["start"], of["stop"])]
    step = f":{of['step']}" if of["step"] != 1 else ""
    return f"{inputs[0]}[{':, ' * axis}{ends[0] or ''}:{ends[1]}{step}]"


def _reduction(function: str) -> Expression:
    def row(_: Scope, node: Node, inputs: list[str]) -> str:
        of = node.attributes
        axes = same(of["axes"] if "axes" in of else (of["axis"],))
        values = ".values" if "axis" in of else ""
        return f"{function}({inputs[0]}, {axes}{', keepdim=True' * of['keep']}){values}"

    return row


def _gelu(_: Scope, node: Node, inputs: list[str]) -> str:
    more = ', approximate="tanh"' if node.attributes["approximate"] else ""
    return f"F.gelu({inputs[0]}{more})"


def _dropout(scope: Scope, node: Node, inputs: list[str]) -> str:
    of = node.attributes
    if of["kind"] == "examples":
        raise UnprintableError("dropout of whole examples")
    suffix = f"{_rank(scope, node)}d" if of["kind"] == "maps" else ""
    return f"F.dropout{suffix}({inputs[0]}, {of['rate']}, {'True' if of['always'] else 'self.training'})"


def _instance_norm(_: Scope, node: Node, inputs: list[str]) -> str:
    epsilon = node.attributes["epsilon"]
    return f"F.instance_norm({inputs[0]}{f', eps={epsilon}' if epsilon != 1e-5 else ''})"


EXPRESSIONS: Mapping[str, Expression] = {
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "adaptive_average_pool": _adaptive("avg"),
    "adaptive_max_pool": _adaptive("max"),
    "interpolate": _interpolate,
    "pad": _pad,
    "slice": _slice,
    "concatenate": _joined("torch.cat"),
    "stack": _joined("torch.stack"),
    "mean": _reduction("torch.mean"),
    "sum": _reduction("torch.sum"),
    "amax": _reduction("torch.amax"),
    "amin": _reduction("torch.amin"),
    "largest": _reduction("torch.max"),
    "smallest": _reduction("torch.min"),
    "softmax": _called("F.softmax", "axis", keyword="dim"),
    "log_softmax": _called("F.log_softmax", "axis", keyword="dim"),
    "leaky_relu": _called("F.leaky_relu", "slope"),
    "softplus": _called("F.softplus", "beta", "threshold"),
    "clamp": _called("torch.clamp", "low", "high"),
    "hardtanh": _called("F.hardtanh", "low", "high"),
    "gelu": _gelu,
    "dropout": _dropout,
    "instance_norm": _instance_norm,
    "pixel_shuffle": _called("F.pixel_shuffle", "factor"),
    "pixel_unshuffle": _called("F.pixel_unshuffle", "factor"),
}
"""Of anything."""

FUNCTIONS = {
    "relu": "F.relu",
    "sigmoid": "torch.sigmoid",
    "tanh": "torch.tanh",
    "silu": "F.silu",
    "mish": "F.mish",
    "hardswish": "F.hardswish",
    "hardsigmoid": "F.hardsigmoid",
    "log_sigmoid": "F.logsigmoid",
    "softsign": "F.softsign",
    "exp": "torch.exp",
    "log": "torch.log",
    "sqrt": "torch.sqrt",
    "rsqrt": "torch.rsqrt",
    "absolute": "torch.abs",
    "negative": "torch.neg",
    "reciprocal": "torch.reciprocal",
    "floor": "torch.floor",
    "sine": "torch.sin",
    "cosine": "torch.cos",
    "erf": "torch.erf",
}
"""Of one array, and nothing else."""

ARITHMETIC = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
}
"""Of two."""

_MODULES = {
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "silu": "SiLU",
    "mish": "Mish",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "logsigmoid": "LogSigmoid",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "gelu": "GELU",
    "leaky_relu": "LeakyReLU",
    "hardtanh": "Hardtanh",
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
    "dropout": "Dropout",
    "pixel_shuffle": "PixelShuffle",
    "pixel_unshuffle": "PixelUnshuffle",
    **{f"dropout{n}d": f"Dropout{n}d" for n in (1, 2, 3)},
    **{f"max_pool{n}d": f"MaxPool{n}d" for n in (1, 2, 3)},
    **{f"avg_pool{n}d": f"AvgPool{n}d" for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": f"AdaptiveAvgPool{n}d" for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": f"AdaptiveMaxPool{n}d" for n in (1, 2, 3)},
    "interpolate": "Upsample",
}
"""What a sequence holds in place of a function; both take the same arguments behind the map."""
