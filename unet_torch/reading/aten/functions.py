"""Functions of each number, and reductions."""

from typing import Any

from unet_core.graph.operations import FUNCTIONS
from unet_torch.reading.aten.rows import Number, row
from unet_torch.reading.program import Array, Map, Program, UnreadableError

_OTHER_NAMES = {
    "absolute": "abs",
    "negative": "neg",
    "sine": "sin",
    "cosine": "cos",
}


def _function(operation: str) -> None:
    @row(_OTHER_NAMES.get(operation, operation))
    def function(p: Program, x: Array) -> Map:
        return p.add(operation, x)


for _name in FUNCTIONS:
    _function(_name)


@row("leaky_relu")
def leaky_relu(p: Program, x: Array, negative_slope: Number = 0.01) -> Map:
    """The torch function."""
    return p.add("leaky_relu", x, slope=negative_slope)


@row("rrelu")
def rrelu(p: Program, x: Array, lower: Number, upper: Number, training: bool) -> Map:
    """Random slopes in training; their mean else."""
    if training:
        raise UnreadableError(f"{p.place}: rrelu draws slopes")
    return p.add("leaky_relu", x, slope=(lower + upper) / 2)


@row("elu")
def elu(p: Program, x: Array, alpha: Number = 1.0, scale: Number = 1.0, input_scale: Number = 1.0) -> Map:
    """With its three factors."""
    return p.add("elu", x, alpha=float(alpha), scale=float(scale), input_scale=float(input_scale))


@row("selu")
def selu(p: Program, x: Array) -> Map:
    """An elu with the constants of its authors, as torch has them."""
    return p.add("elu", x, alpha=1.6732632423543772848170429916717, scale=1.0507009873554804934193349852946)


@row("celu")
def celu(p: Program, x: Array, alpha: Number = 1.0) -> Map:
    """An elu that is smooth."""
    return p.add("elu", x, alpha=alpha, input_scale=1 / alpha)


@row("gelu")
def gelu(p: Program, x: Array, approximate: str = "none") -> Map:
    """Exact, or by tanh."""
    return p.add("gelu", x, approximate=approximate == "tanh")


@row("softplus")
def softplus(p: Program, x: Array, beta: Number = 1.0, threshold: Number = 20.0) -> Map:
    """Linear beyond the threshold."""
    return p.add("softplus", x, beta=beta, threshold=threshold)


@row("hardtanh")
def hardtanh(p: Program, x: Array, min_val: Number = -1.0, max_val: Number = 1.0) -> Map:
    """Cut off at both."""
    return p.add("hardtanh", x, low=min_val, high=max_val)


@row("relu6")
def relu6(p: Program, x: Array) -> Map:
    """Cut off at 0 and 6."""
    return p.add("hardtanh", x, low=0.0, high=6.0)


@row("clamp", "clip", "clamp_min", "clamp_max")
def clamp(p: Program, x: Array, low: Any = None, high: Any = None) -> Map:
    """By numbers, or by maps."""
    for bound, operation in ((low, "maximum"), (high, "minimum")):
        if bound is not None and not isinstance(bound, int | float):
            x = p.add(operation, x, bound)
    least, most = (float(bound) if isinstance(bound, int | float) else None for bound in (low, high))
    return p.map(x) if least is None and most is None else p.add("clamp", x, low=least, high=most)


@row("glu")
def glu(p: Program, x: Array, dim: int = -1) -> Map:
    """One half of an axis times the sigmoid of the other."""
    size = x.shape[dim]
    half = size // 2
    value = p.add("slice", x, axis=dim, start=0, stop=half)
    return p.add("multiply", value, p.add("sigmoid", p.add("slice", x, axis=dim, start=half, stop=size)))


@row("softmax")
def softmax(p: Program, x: Array, dim: int) -> Map:
    """Over one axis."""
    return p.add("softmax", x, axis=dim)


@row("log_softmax")
def log_softmax(p: Program, x: Array, dim: int) -> Map:
    """Over one axis."""
    return p.add("log_softmax", x, axis=dim)


def axes_of(x: Array, dim: Any) -> tuple[int, ...]:
    """The axes; all of them where there are none."""
    if dim is None or dim == []:
        return tuple(range(len(x.shape)))
    return tuple(dim) if isinstance(dim, list | tuple) else (dim,)


def _reduction(name: str) -> None:
    @row(name)
    def reduction(p: Program, x: Array, dim: Any = None, keepdim: bool = False) -> Map:
        return p.add(name, x, axes=axes_of(x, dim), keep=keepdim)


for _name in ("mean", "sum", "amax", "amin"):
    _reduction(_name)


def _extremum(name: str, of_one: str, of_all: str, of_two: str) -> None:
    @row(name)
    def extremum(p: Program, x: Array, dim: int | None = None, keepdim: bool = False, y: Any = None) -> Any:
        if y is not None:
            return p.add(of_two, x, y)
        if dim is None:
            return p.add(of_all, x, axes=axes_of(x, None))
        return p.add(of_one, x, axis=dim, keep=keepdim), None


_extremum("max", "largest", "amax", "maximum")
_extremum("min", "smallest", "amin", "minimum")


@row("var")
def variance(
    p: Program,
    x: Array,
    dim: Any = None,
    unbiased: bool = True,
    correction: Number | None = None,
    keepdim: bool = False,
) -> Map:
    """Divided by the number of values less the correction."""
    less = float(unbiased) if correction is None else float(correction)
    return p.add("variance", x, axes=axes_of(x, dim), keep=keepdim, correction=less)


@row("std")
def deviation(
    p: Program,
    x: Array,
    dim: Any = None,
    unbiased: bool = True,
    correction: Number | None = None,
    keepdim: bool = False,
) -> Map:
    """The root of the variance."""
    return p.add("sqrt", variance(p, x, dim, unbiased, correction, keepdim))


@row("var_mean")
def variance_and_mean(
    p: Program,
    x: Array,
    dim: Any = None,
    unbiased: bool = True,
    correction: Number | None = None,
    keepdim: bool = False,
) -> tuple[Map, Map]:
    """Both."""
    return (
        variance(p, x, dim, unbiased, correction, keepdim),
        p.add("mean", x, axes=axes_of(x, dim), keep=keepdim),
    )


@row("linalg_vector_norm")
def vector_norm(p: Program, x: Array, order: Number = 2, dim: Any = None, keepdim: bool = False) -> Map:
    """Of any order."""
    return p.add("vector_norm", x, axes=axes_of(x, dim), keep=keepdim, order=float(order))
