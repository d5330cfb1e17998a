"""Functions of each number, and softmax."""

from unet_core.graph.operations.table import Dtype, Role, operation
from unet_core.graph.sizes import Shape


def _function(x: Shape) -> Shape:
    return x


FUNCTIONS = (
    *("relu", "sigmoid", "tanh", "silu", "mish", "hardswish", "hardsigmoid", "log_sigmoid", "softsign"),
    *("exp", "log", "sqrt", "rsqrt", "absolute", "negative", "reciprocal", "floor", "sine", "cosine", "erf"),
)
for _name in FUNCTIONS:
    operation(_function, _name)


@operation
def leaky_relu(x: Shape, *, slope: float) -> Shape:
    """`slope` times the number where it is not above 0."""
    return x


@operation
def prelu(x: Shape, *, weight: Role) -> Shape:
    """As leaky_relu, with a trained slope for each channel, or one for all."""
    return x


@operation
def elu(x: Shape, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Shape:
    """Is scale * x above 0, else scale * alpha * (exp(input_scale * x) - 1)."""
    return x


@operation
def gelu(x: Shape, *, approximate: bool = False) -> Shape:
    """Exact, or by tanh."""
    return x


@operation
def softplus(x: Shape, *, beta: float = 1.0, threshold: float = 20.0) -> Shape:
    """log(1 + exp(beta x)) / beta; x itself where beta x is above the threshold."""
    return x


@operation
def clamp(x: Shape, *, low: float | None = None, high: float | None = None) -> Shape:
    """Not below `low`, not above `high`."""
    return x


@operation
def hardtanh(x: Shape, *, low: float, high: float) -> Shape:
    """As clamp, but that the gradient is 0 at `low` and `high` themselves; relu6 is the one from 0 to 6."""
    return x


@operation
def softmax(x: Shape, *, axis: int) -> Shape:
    """Over one axis."""
    return x


@operation
def log_softmax(x: Shape, *, axis: int) -> Shape:
    """Over one axis."""
    return x


@operation
def cast(x: Shape, *, dtype: Dtype | None = None) -> Shape:
    """In another dtype; without one, in that of the network."""
    return x
