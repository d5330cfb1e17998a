"""Every operation of a graph: in JAX against PyTorch in float64, and in PyTorch against the modules of torch.nn."""

import inspect
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from torch import nn

from unet_core.graph import Node
from unet_core.graph.operations import FUNCTIONS, Role
from unet_core.graph.operations import OPERATIONS as TABLE
from unet_core.graph.sizes import evaluate, named
from unet_jax.execution import spatial_first
from unet_jax.operations import OPERATIONS as OURS
from unet_jax.operations import Layout, Row, interpolation
from unet_torch.operations import OPERATIONS as THEIRS

pytestmark = pytest.mark.usefixtures("one_thread", "x64")

AXES = {"n": "batch", "d": "depth", "h": "height", "w": "width"}
SIZES = st.fixed_dictionaries(
    {"batch": st.integers(1, 3), "depth": st.integers(3, 5), "height": st.integers(5, 9), "width": st.integers(5, 9)}
)


@dataclass(frozen=True)
class Case:
    """An operation with shapes such as `n 4 h w`; behind a shape, which numbers.

    `?` truth values, `+` above 0.3, `=` few whole numbers, many of them equal, `#` counts; else normal ones, among them
    the places of kinks.
    """

    operation: str
    inputs: tuple[str, ...]
    tensors: dict[str, str]
    attributes: dict[str, Any]
    training: bool = True

    def __str__(self):
        return "-".join([self.operation, *self.inputs, *(f"{k}={v}" for k, v in self.attributes.items())])

    @property
    def node(self):
        return Node("node", self.operation, tuple(map(str, self.inputs)), {k: k for k in self.tensors}, self.attributes)

    @property
    def shape(self):
        """Of the answer, as the table has it, with the sizes of the inputs as they are named."""

        def sizes(spec):
            return tuple(named(AXES[s]) if s in AXES else int(s) for s in spec.split() if s.isalnum())

        roles = {role: Role(sizes(spec)) for role, spec in self.tensors.items()}
        return TABLE[self.operation].shape(*map(sizes, self.inputs), **roles, **self.node.attributes)


def case(operation, *inputs, training=True, **more):
    roles = TABLE[operation].roles
    return Case(
        operation,
        inputs,
        {name: value for name, value in more.items() if name in roles},
        {name: value for name, value in more.items() if name not in roles},
        training,
    )


def numbers(spec, sizes, rng):
    shape = [sizes[AXES[s]] if s in AXES else int(s) for s in spec.split() if s.isalnum()]
    match spec[-1]:
        case "?":
            return rng.random(shape) < 0.6
        case "+":
            return rng.uniform(0.3, 2, shape)
        case "=":
            return rng.integers(-1, 3, shape).astype(np.float64)
        case "#":
            return np.array(rng.integers(2, 9, shape))
    x = rng.standard_normal(shape) * 2
    x.flat[::3] = rng.choice([-3.0, -1.0, 0.0, 0.5, 3.0, 6.0], x.flat[::3].shape)
    return x


class Run:
    """Draws the same numbers in both, of a shape in torch's layout."""

    def __init__(self, case, dtype, made):
        self.training, self.dtype, self.made, self.strips = case.training, dtype, made, 1
        self.rng = np.random.default_rng(5)
        self.tracked = {}

    def track(self, role, value):
        self.tracked[role] = value

    def uniform(self, shape):
        return self.made(self.rng, shape)


def drawn_last(rng, shape):
    return np.moveaxis(rng.random((shape[0], shape[-1], *shape[1:-1])), 1, -1)


def torchs(case, sizes, arrays, **changed):
    """The answer, and what was tracked."""
    run = Run(case, torch.float64, lambda rng, shape: torch.tensor(rng.random(shape)))
    row = THEIRS[case.operation]
    attributes = case.node.at(sizes) | changed
    if "run" in inspect.signature(row).parameters:
        attributes["run"] = run
    count = len(case.inputs)
    return row(*arrays[:count], **dict(zip(case.tensors, arrays[count:], strict=True)), **attributes), run.tracked


def ours(case, sizes, arrays, **changed):
    row = OURS[case.operation]
    maps = row.layout is Layout.MAPS
    made = drawn_last if maps else np.random.Generator.random
    run = Run(case, jnp.float64, lambda rng, shape: jnp.asarray(made(rng, shape)))
    attributes = case.node.at(sizes) | changed | ({"run": run} if row.needs_run else {})
    count = len(case.inputs)
    inputs = [jnp.moveaxis(x, 1, -1) if maps and x.ndim > 2 else x for x in arrays[:count]]
    tensors = dict(zip(case.tensors, arrays[count:], strict=True))
    if case.operation in ("convolution", "transposed_convolution"):
        tensors["weight"] = spatial_first(case.node, tensors["weight"])
    y = row.function(*inputs, **tensors, **attributes)
    return jnp.moveaxis(y, -1, 1) if maps and y.ndim > 2 else y, run.tracked


def close(found, expected, tolerance):
    found = np.asarray(found)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    size = np.abs(expected[np.isfinite(expected)]).max(initial=1.0) if expected.dtype != bool else 1
    tolerance = 1e-6 if expected.dtype == np.float32 else tolerance
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * size)


def compare(case, sizes, **changed):
    """Both tables, with attributes changed in ours: the answer, its shape, the gradients, and what is tracked."""
    rng = np.random.default_rng(0)
    arrays = [numbers(spec, sizes, rng) for spec in (*case.inputs, *case.tensors.values())]
    roles = [""] * len(case.inputs) + list(case.tensors)
    trained = [x.dtype == float and role not in STATISTICS for role, x in zip(roles, arrays, strict=True)]

    theirs = [torch.tensor(x, requires_grad=needed) for x, needed in zip(arrays, trained, strict=True)]
    expected, tracked = torchs(case, sizes, theirs)
    assert expected.shape == tuple(evaluate(size, sizes) for size in case.shape)

    def function(*parts):
        given = iter(parts)
        return ours(
            case,
            sizes,
            [next(given) if needed else jnp.asarray(x) for x, needed in zip(arrays, trained, strict=True)],
            **changed,
        )

    gradient = rng.standard_normal(expected.shape)
    wanted = [None] * sum(trained)
    if expected.requires_grad:
        by = [x for x in theirs if x.requires_grad]
        wanted = torch.autograd.grad(expected, by, torch.tensor(gradient).to(expected), allow_unused=True)

    @jax.jit
    def both(*parts):
        found, back, tracked = jax.vjp(function, *parts, has_aux=True)
        floating = jnp.issubdtype(found.dtype, jnp.floating)
        return found, back(jnp.asarray(gradient, found.dtype)) if floating else (), tracked

    found, gradients, our_tracked = both(*(jnp.asarray(x) for x, needed in zip(arrays, trained, strict=True) if needed))
    close(found, expected.detach().numpy(), 1e-12)
    assert our_tracked.keys() == tracked.keys()
    for role, value in tracked.items():
        close(our_tracked[role], value.numpy(), 1e-12)
    for mine, grad in zip(gradients, wanted, strict=bool(gradients)):
        close(mine, np.zeros(mine.shape) if grad is None else grad.numpy(), 1e-11)


MAP, DEEP = "n 4 h w", "n 4 d h w"
CONVOLUTION = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
TRANSPOSED = CONVOLUTION | {"stride": (2, 2), "padding": (0, 0), "output_padding": (0, 0)}
AFFINE = {"weight": "4", "bias": "4"}
STATISTICS = {"mean": "4", "variance": "4 +", "count": "#"}
POOL = {"window": (2, 2), "stride": (2, 2), "padding": (0, 0)}
MAXIMA = POOL | {"dilation": (1, 1)}

CASES = [
    case("convolution", MAP, weight="6 4 3 3", bias="6", **CONVOLUTION),
    case("convolution", MAP, weight="6 4 1 1", bias="6", **CONVOLUTION | {"padding": ((0, 0), (0, 0))}),
    case("convolution", MAP, weight="6 4 1 1", **CONVOLUTION | {"padding": ((0, 0), (0, 0)), "stride": (2, 3)}),
    case("convolution", MAP, weight="1 4 1 1", bias="1", **CONVOLUTION | {"padding": ((0, 0), (0, 0))}),
    case(
        "convolution",
        MAP,
        weight="6 2 3 2",
        **CONVOLUTION | {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "groups": 2},
    ),
    case("convolution", MAP, weight="4 1 3 3", bias="4", **CONVOLUTION | {"stride": (2, 2), "groups": 4}),
    case("convolution", MAP, weight="8 1 3 3", **CONVOLUTION | {"dilation": (2, 1), "groups": 4}),
    case("convolution", MAP, weight="2 4 3 3", **CONVOLUTION | {"padding": ((2, 2), (2, 2)), "dilation": (2, 2)}),
    case(
        "convolution",
        DEEP,
        weight="2 4 3 3 3",
        bias="2",
        stride=(1, 2, 2),
        padding=((1, 1), (1, 1), (1, 1)),
        dilation=(1, 1, 1),
        groups=1,
    ),
    case("convolution", "n 4 w", weight="4 2 3", stride=(1,), padding=((1, 1),), dilation=(1,), groups=2),
    case("transposed_convolution", MAP, weight="4 3 2 2", bias="3", **TRANSPOSED),
    case("transposed_convolution", MAP, weight="4 3 3 3", **TRANSPOSED | {"padding": (1, 1), "output_padding": (1, 0)}),
    case("transposed_convolution", MAP, weight="4 3 4 3", bias="6", **TRANSPOSED | {"padding": (1, 0), "groups": 2}),
    case("transposed_convolution", MAP, weight="4 2 2 3", **TRANSPOSED | {"stride": (3, 1), "dilation": (1, 2)}),
    case(
        "transposed_convolution",
        DEEP,
        weight="4 2 3 3 3",
        bias="2",
        stride=(2, 2, 2),
        padding=(1, 1, 1),
        output_padding=(1, 1, 1),
        dilation=(1, 1, 1),
        groups=1,
    ),
    case(
        "transposed_convolution",
        "2 4 3 4 3",
        weight="4 2 2 2 1",
        stride=(2, 2, 1),
        padding=(0, 0, 0),
        output_padding=(0, 0, 0),
        dilation=(1, 1, 1),
        groups=1,
    ),
    case("linear", "n 5 h 4", weight="3 4", bias="3"),
    case("linear", "n 4", weight="3 4"),
    *(
        case(
            "batch_norm", MAP, **AFFINE, **STATISTICS, epsilon=1e-3, momentum=momentum, frozen=frozen, training=training
        )
        for momentum, frozen, training in (
            (0.2, False, True),
            (None, False, True),
            (0.2, False, False),
            (0.2, True, True),
        )
    ),
    case("batch_norm", DEEP, mean="4", variance="4 +", epsilon=1e-5, momentum=0.1),
    case("batch_norm", "6 4", weight="4", epsilon=1e-5, momentum=None, training=False),
    case("batch_norm", "n 4 w", **AFFINE, mean="4", variance="4 +", epsilon=1e-5, momentum=None),
    case("instance_norm", MAP, **AFFINE, epsilon=1e-3),
    case("instance_norm", DEEP, epsilon=1e-5, training=False),
    case("instance_norm", MAP, **AFFINE, **STATISTICS, epsilon=1e-5, momentum=0.2),
    case("instance_norm", MAP, **STATISTICS, epsilon=1e-5, momentum=0.2, training=False),
    case("group_norm", MAP, **AFFINE, groups=2, epsilon=1e-3),
    case("group_norm", DEEP, groups=1, epsilon=1e-5),
    case("group_norm", "3 4", **AFFINE, groups=2, epsilon=1e-5),
    case("layer_norm", "n h 4", **AFFINE, axes=1, epsilon=1e-3),
    case("layer_norm", "n h 3 4", weight="3 4", axes=2, epsilon=1e-5),
    case("max_pool", MAP, **MAXIMA),
    case("max_pool", f"{MAP} =", **MAXIMA),
    case("max_pool", f"{MAP} =", **MAXIMA | {"window": (3, 3), "padding": (1, 1)}),
    case("max_pool", f"{MAP} =", **MAXIMA | {"window": (3, 2), "padding": (1, 0)}, ceil=True),
    case("max_pool", f"{MAP} =", **MAXIMA | {"window": (2, 3), "stride": (1, 3), "dilation": (2, 1)}),
    case("max_pool", f"{MAP} =", **MAXIMA | {"window": (2, 2), "padding": (1, 1)}, ceil=True),
    case("max_pool", f"{DEEP} =", window=(1, 2, 2), stride=(1, 2, 2), padding=(0, 0, 0), dilation=(1, 1, 1), ceil=True),
    case("average_pool", MAP, **POOL),
    case("average_pool", MAP, **POOL | {"window": (3, 3), "padding": (1, 1)}),
    case("average_pool", MAP, **POOL | {"window": (3, 3), "padding": (1, 1)}, ceil=True),
    case("average_pool", MAP, **POOL | {"window": (3, 2), "padding": (1, 1)}, ceil=True, count_padding=False),
    case("average_pool", MAP, **POOL | {"window": (3, 3), "padding": (1, 1)}, divisor=5),
    case("average_pool", DEEP, window=(2, 2, 2), stride=(2, 2, 1), padding=(1, 0, 1)),
    case("adaptive_average_pool", MAP, size=(1, 1)),
    case("adaptive_average_pool", MAP, size=(3, 2)),
    case("adaptive_average_pool", DEEP, size=(2, "height", 1)),
    case("adaptive_max_pool", f"{MAP} =", size=(1, 1)),
    case("adaptive_max_pool", f"{MAP} =", size=(3, 2)),
    case("adaptive_max_pool", f"{DEEP} =", size=(1, 2, 3)),
    *(
        case("interpolate", MAP, mode=mode, align_corners=corners, **target)
        for mode, corners in (("nearest", False), ("nearest-exact", False), ("linear", False), ("linear", True))
        for target in ({"size": ("2 * height", "3 * width")}, {"size": (4, 11)}, {"scale": (1.75, 0.5)})
    ),
    *(
        case("interpolate", MAP, mode="cubic", align_corners=corners, **target)
        for corners in (False, True)
        for target in ({"size": ("2 * height", 3)}, {"scale": (1.75, 0.5)})
    ),
    *(
        case("interpolate", MAP, mode=mode, align_corners=corners, antialias=True, **target)
        for mode, corners in (("linear", False), ("linear", True), ("cubic", False))
        for target in ({"size": (3, 4)}, {"scale": (0.625, 2.0)})
    ),
    case("interpolate", MAP, mode="linear", size=("height // 3", 4), scale=(0.3, 0.6)),
    case("interpolate", "n 4 1 1", mode="linear", size=(5, 6)),
    case("interpolate", "1 1 67 5", mode="linear", size=(101, 5)),
    case("interpolate", DEEP, mode="nearest", scale=(2.0, 2.0, 2.0)),
    case("interpolate", DEEP, mode="linear", scale=(2.0, 2.0, 2.0), align_corners=True),
    case("interpolate", DEEP, mode="linear", size=(5, "height", 3)),
    case("interpolate", "n 4 w", mode="linear", scale=(2.0,)),
    case("pixel_shuffle", "n 12 h w", factor=2),
    case("pixel_unshuffle", "n 3 4 6", factor=2),
    case("pad", MAP, amounts=((0, 0), (1, 2), (0, 3), (2, 0)), value=1.5),
    case("pad", MAP, amounts=((0, 0), (0, 0), (-1, 2), (-2, -1))),
    *(
        case("pad", MAP, amounts=((0, 0), (0, 0), (1, 2), (3, 0)), mode=mode)
        for mode in ("reflect", "replicate", "circular")
    ),
    case("pad", DEEP, amounts=((0, 0), (0, 0), (1, 1), (1, 2), (0, 1)), mode="reflect"),
    *(
        case("pad", MAP, amounts=((0, 0), (0, 0), (-1, 2), (0, -1)), mode=mode)
        for mode in ("reflect", "replicate", "circular")
    ),
    case("slice", MAP, axis=-1, start=1, stop="width - 1", step=2),
    case("slice", MAP, axis=1, start=1, stop=3),
    case("select", MAP, axis=1, index=2),
    case("select", MAP, axis=-1, index=-1),
    case("take", MAP, axis=1, indices=(3, 0, 0)),
    case("take", MAP, axis=2, indices=(0, 2, 4)),
    case("take", MAP, axis=-1, indices=tuple(place % 5 for place in range(20))),
    case("concatenate", MAP, "n 2 h w", axis=1),
    case("concatenate", MAP, MAP, MAP, axis=-2),
    case("stack", MAP, MAP, axis=1),
    case("stack", "n 4", "n 4", axis=-1),
    case("reshape", MAP, shape=("batch", 2, "2 * height", "width")),
    case("permute", MAP, axes=(0, 2, 3, 1)),
    case("expand", "n 4 1 1", shape=("batch", 4, "height", "width")),
    case("expand", "4", shape=(2, 3, 4)),
    case("tile", MAP, times=(2, 1, 3)),
    case("tile", "4 5", times=(2, 1, 3)),
    case("flip", MAP, axes=(-1, 2)),
    case("roll", MAP, shifts=(2, -1), axes=(2, -1)),
    *(
        case(name, *inputs, **number)
        for name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum")
        for inputs, number in (
            (("n 4 h w +", "4 1 1 +"), {}),
            (("n 4 h w +",), {"left": 2}),
            (("n 4 h w +",), {"right": 0.5}),
        )
    ),
    case("divide", "n 4 #", "n 4 #"),
    case("divide", "n 4 #", right=3),
    case("multiply", "n 4 #", right=0.3),
    case("power", MAP, right=2),
    case("power", MAP, right=3.0),
    case("maximum", "n 4 h w =", "n 4 h w ="),
    case("minimum", "n 4 h w =", right=1),
    *(case("compare", "n 4 h w =", "4 1 w =", relation=relation) for relation in ("<", "<=", ">", ">=", "==", "!=")),
    case("compare", "n 4 h w =", relation=">", left=1),
    case("compare", "n 4 #", relation="<", right=3.5),
    case("where", "n 4 h w ?", MAP, "4 1 1"),
    case("matmul", "n 3 h 4", "3 4 w"),
    case("einsum", "n 4 h w", "n h 3", equation="nchw,nhk->nkcw"),
    case("einsum", "n h w", equation="nhw->wn"),
    case("attention", "n 2 h 3", "n 2 w 3", "n 2 w 5", scale=0.3),
    case("attention", "n 2 h 3", "n 2 h 3", "n 2 h 3", causal=True),
    case("attention", "n 2 h 3", "n 2 w 3", "n 2 w 5", "h w"),
    case("attention", "n 2 h 3", "n 2 w 3", "n 2 w 5", "n 1 h w ?", rate=0.4),
    *(case(name, "2 4 5 6" + " +" * (name in ("log", "sqrt", "rsqrt", "reciprocal"))) for name in FUNCTIONS),
    case("leaky_relu", "2 4 5 6", slope=0.1),
    case("prelu", "2 4 5 6", weight="4"),
    case("prelu", "2 4 5 6", weight="1"),
    case("prelu", "2 4", weight="4"),
    case("prelu", "2 4 5", weight="4"),
    case("elu", "2 4 5 6", alpha=1.5, scale=1.2, input_scale=0.7),
    case("gelu", "2 4 5 6"),
    case("gelu", "2 4 5 6", approximate=True),
    case("softplus", "2 4 5 6"),
    case("softplus", "2 4 5 6", beta=2.0, threshold=3.0),
    case("clamp", "2 4 5 6", low=0.0, high=6.0),
    case("clamp", "2 4 5 6", low=0.5),
    case("clamp", "2 4 5 6", high=-1.0),
    case("hardtanh", "2 4 5 6", low=0.0, high=6.0),
    case("softmax", MAP, axis=1),
    case("log_softmax", MAP, axis=-1),
    *(case("cast", "2 4 5 6", dtype=dtype) for dtype in ("float32", "int64", "bool")),
    case("cast", "2 4 ?", dtype="float64"),
    case("cast", "2 4 ?"),
    *(
        case(name, f"{MAP} =", axes=axes, keep=keep)
        for name in ("mean", "sum", "amax", "amin")
        for axes, keep in (((2, 3), True), ((-3,), False))
    ),
    *(
        case(name, f"{MAP} =", axis=axis, keep=keep)
        for name in ("largest", "smallest")
        for axis, keep in ((1, True), (-1, False))
    ),
    case("variance", MAP, axes=(2, 3), keep=True),
    case("variance", MAP, axes=(1,), correction=0.0),
    *(
        case("vector_norm", f"{MAP} =", axes=(1,), order=order)
        for order in (0.0, 1.0, 2.0, 3.0, float("inf"), -float("inf"))
    ),
    case("vector_norm", "2 4 1", axes=(-1,), keep=True),
    case("constant", values=(1.0, 2.5, -3.0, 4.0), shape=(2, 2)),
    case("constant", values=(1.0, 0.0), shape=(2,), dtype="bool"),
    case("full", shape=("batch", 3), value="height * width"),
    case("full", shape=("batch",), value=0.5, dtype="float32"),
    case("parameter", value="1 4 5"),
    *(case("dropout", MAP, rate=0.4, kind=kind) for kind in ("elements", "maps", "examples")),
    case("dropout", "n h 4", rate=0.4),
    case("dropout", "n 4", rate=0.4, kind="maps", training=False, always=True),
    case("dropout", MAP, rate=0.4, training=False),
    case("dropout", MAP, rate=1.0),
    case("chance", shape=("batch", 3)),
    case("chance", shape=("batch", 3), probability=0.3),
]


def test_the_three_tables_have_the_same_rows():
    def parameters(row):
        found = inspect.signature(row).parameters.values()
        return [(part.name, part.kind, part.default) for part in found if part.name != "run"]

    assert TABLE.keys() == OURS.keys(), "those that rewrites make, too"
    stored = {name: operation for name, operation in TABLE.items() if operation.stored}
    assert stored.keys() == {case.operation for case in CASES}
    assert stored.keys() <= THEIRS.keys() <= TABLE.keys()
    for name, operation in stored.items():
        assert parameters(operation.shape) == parameters(THEIRS[name]), name
        if name not in FUNCTIONS:  # these are JAX's own
            assert parameters(operation.shape) == parameters(OURS[name].function), name
        assert ("run" in inspect.signature(THEIRS[name]).parameters) == OURS[name].needs_run


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rows_agree(case):
    """At a size that is even along one axis and odd along the other; the same one, whose programs JAX keeps."""
    compare(case, dict(zip(AXES.values(), (2, 3, 6, 7), strict=True)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rows_agree_at_any_size(case):
    settings(max_examples=2)(given(SIZES)(lambda sizes: compare(case, sizes)))()


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.operation.endswith("convolution") and case.shape[1:2] != (1,)],
    ids=str,
)
def test_a_convolution_is_torchs_on_other_devices_than_a_cpu(monkeypatch, case):
    """There XLA's own are taken, which nothing else here computes."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *inputs, default, **_: default(*inputs))
    compare(case, {"batch": 2, "depth": 4, "height": 6, "width": 7})


def find(operation, **attributes):
    """The first case of an operation with these attributes."""
    return next(
        case
        for case in CASES
        if case.operation == operation and attributes.items() <= case.attributes.items() | {("training", case.training)}
    )


@pytest.mark.parametrize(
    ("case", "changed"),
    [
        (find("convolution", stride=(2, 1)), {"padding": ((2, 1), (1, 0))}),
        (find("pad", mode="circular"), {"mode": "reflect"}),
        (find("transposed_convolution", stride=(3, 1)), {"padding": (1, 0), "output_padding": (2, 0)}),
        (find("batch_norm", momentum=0.2), {"epsilon": 2e-3}),
        (find("batch_norm", momentum=0.2), {"momentum": 0.19}),
        (find("batch_norm", momentum=None), {"momentum": 0.1}),
        (find("batch_norm", momentum=0.2), {"frozen": True}),
        (find("instance_norm"), {"epsilon": 1e-5}),
        (find("group_norm", groups=2), {"groups": 1}),
        (find("layer_norm"), {"epsilon": 1e-5}),
        (find("average_pool", count_padding=False), {"count_padding": True}),
        (find("average_pool", divisor=5), {"divisor": None}),
        (find("interpolate", mode="linear", size=(4, 11)), {"align_corners": True}),
        (find("interpolate", mode="nearest", size=(4, 11)), {"mode": "nearest-exact"}),
        (find("interpolate", antialias=True, size=(3, 4)), {"antialias": False}),
        (find("interpolate", size=("height // 3", 4)), {"scale": None}),
        (find("pad", mode="reflect"), {"mode": "replicate"}),
        (find("attention", causal=True), {"causal": False}),
        (find("attention", scale=0.3), {"scale": None}),
        (find("leaky_relu"), {"slope": 0.01}),
        (find("elu"), {"alpha": 1.0}),
        (find("gelu"), {"approximate": True}),
        (find("softplus", threshold=3.0), {"threshold": 20.0}),
        (find("variance", keep=True), {"correction": 0.0}),
        (find("dropout", kind="maps"), {"rate": 0.6}),
    ],
    ids=str,
)
def test_another_attribute_is_found(case, changed):
    with pytest.raises(AssertionError):
        compare(case, {"batch": 2, "depth": 3, "height": 7, "width": 6}, **changed)


@pytest.mark.parametrize(("operation", "place"), [("hardtanh", "clamp"), ("largest", "amax"), ("smallest", "amin")])
def test_equal_answers_with_another_gradient_are_two_operations(monkeypatch, operation, place):
    """`amax` shares the gradient between equal numbers; `clamp` lets it through at its ends."""
    row = OURS[place].function
    wrong = row if operation == "hardtanh" else lambda x, *, axis, keep=False: row(x, axes=(axis,), keep=keep)
    monkeypatch.setitem(OURS, operation, Row(wrong, Layout.SAME))
    with pytest.raises(AssertionError):
        compare(find(operation), {"batch": 2, "height": 5, "width": 6})


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolation_is_torchs_at_every_size(mode, corners, antialias):
    options = {"align_corners": corners, "antialias": antialias}
    for length, target, extra in product((1, 2, 3, 7, 12, 31), (1, 2, 3, 7, 10, 24, 65), (None, 0.0, 0.4, 0.9)):
        factor = None if extra is None else (target + extra) / length
        x = torch.eye(length, dtype=torch.float64)[None, :, :, None].repeat(1, 1, 1, 2)
        scale = None if factor is None else (factor, 1.0)
        expected = THEIRS["interpolate"](x, mode=mode, size=(target, 2), scale=scale, **options)[0, :, :, 0].T
        matrix = interpolation.weights(interpolation.Resampling(mode, length, target, factor, **options))
        np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("small", [False, True])
def test_nearest_is_torchs_at_every_size(mode, dtype, small):
    options = {"double": dtype == torch.float64, "small": small}
    for length, target, extra in product((1, 2, 3, 4, 7, 20, 31), (1, 2, 4, 7, 8, 24, 121, 123), (None, 0.0, 0.4, 0.7)):
        factor = None if extra is None else (target + extra) / length
        width = 3 if small else 200
        x = torch.arange(length, dtype=dtype)[None, None, :, None].repeat(1, 3, 1, 3)
        row = partial(THEIRS["interpolate"], mode=mode, size=(target, width))
        expected = row(x, scale=None if factor is None else (factor, width / 3))[0, 0, :, 0]
        matrix = interpolation.weights(interpolation.Resampling(mode, length, target, factor, **options))
        np.testing.assert_array_equal(matrix.argmax(1), expected)


@pytest.mark.parametrize("operation", ["batch_norm", "instance_norm", "group_norm"])
def test_a_norm_of_one_value_is_refused_as_torch_does(operation):
    attributes = {"epsilon": 1e-5, "groups": 4} if operation == "group_norm" else {"epsilon": 1e-5, "momentum": 0.1}
    one = case(operation, "1 4 1 1", **attributes)
    x = np.ones((1, 4, 1, 1))
    with pytest.raises(ValueError, match="more than 1"):
        torchs(one, {}, [torch.tensor(x)])
    with pytest.raises(ValueError, match="1 value"):
        ours(one, {}, [jnp.asarray(x)])


@pytest.mark.parametrize(
    "case",
    [
        find("batch_norm", momentum=0.2),
        find("batch_norm", momentum=0.2, training=False),
        find("instance_norm"),
        find("group_norm"),
        find("layer_norm"),
        find("softmax"),
        find("convolution", groups=4, dilation=(2, 1)),
        find("average_pool", divisor=5),
        find("adaptive_average_pool", size=(3, 2)),
        find("interpolate", mode="linear", size=(4, 11)),
        find("interpolate", mode="linear", scale=(1.75, 0.5)),
    ],
    ids=str,
)
def test_bfloat16_is_rounded_at_the_end_alone(case):
    sizes = {"batch": 2, "depth": 3, "height": 7, "width": 6}
    rng = np.random.default_rng(0)
    arrays = [numbers(spec, sizes, rng) for spec in (*case.inputs, *case.tensors.values())]
    kind = jnp.float32 if case.operation.endswith("norm") else jnp.bfloat16
    given = [jnp.asarray(arrays[0], jnp.bfloat16), *(jnp.asarray(part, kind) for part in arrays[1:])]
    with jax.enable_x64(False):
        found, _ = jax.jit(lambda *given: ours(case, sizes, given))(*given)
    expected, _ = torchs(case, sizes, [torch.tensor(np.asarray(part, np.float64)) for part in given])
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-8, atol=1e-5)


def test_without_float64_nothing_warns_of_it():
    run = Run(find("constant"), jnp.float32, None)
    with jax.enable_x64(False):
        whole = OURS["cast"].function(jnp.ones(3), dtype="int64", run=run)
        made = OURS["constant"].function(values=(1.0, 2.0), shape=(2,), dtype="float64", run=run)
    assert (whole.dtype, made.dtype) == (jnp.int32, jnp.float32)


def of_module(module, training=True):
    """The attributes and tensors of a torch module's operation, and those it has afterwards."""
    module = module.double().train(training)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    return module, x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("operation", "module"),
    [
        ("batch_norm", nn.BatchNorm2d(4, eps=1e-3, momentum=0.3)),
        ("batch_norm", nn.BatchNorm2d(4, momentum=None)),
        ("batch_norm", nn.BatchNorm2d(4, affine=False, track_running_stats=False)),
        ("instance_norm", nn.InstanceNorm2d(4)),
        ("instance_norm", nn.InstanceNorm2d(4, affine=True, track_running_stats=True, momentum=0.3)),
    ],
    ids=str,
)
def test_a_norm_is_torchs_module(operation, module, training):
    torch.manual_seed(0)
    module, x = of_module(module, training)
    roles = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
    roles["num_batches_tracked"] = "count"
    tensors = {roles[name]: tensor.clone() for name, tensor in module.state_dict().items()}
    before = {role: tensor.clone() for role, tensor in tensors.items()}
    run = Run(find(operation), torch.float64, None)
    run.training = training
    y = THEIRS[operation](x, **tensors, epsilon=module.eps, momentum=module.momentum, run=run)
    torch.testing.assert_close(y, module(x), rtol=0, atol=0)
    assert all(torch.equal(tensors[role], value) for role, value in before.items())  # nothing is changed in place
    after = {roles[name]: tensor for name, tensor in module.state_dict().items() if "running" in name or "num" in name}
    for role, value in after.items():
        torch.testing.assert_close(run.tracked.get(role, tensors[role]), value, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_a_convolution_is_torchs_module(mode):
    """Padding of another mode than zeros is an operation of its own."""
    module, x = of_module(nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=2, groups=2, padding_mode=mode))
    padding = ((2, 2), (1, 1))
    expected = module(x)
    if mode != "zeros":
        x = THEIRS["pad"](x, amounts=((0, 0), (0, 0), *padding), mode=mode)
        padding = ((0, 0), (0, 0))
    tensors = {"weight": module.weight, "bias": module.bias}
    y = THEIRS["convolution"](x, **tensors, stride=(2, 2), padding=padding, dilation=(2, 2), groups=2)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("module", "operation", "attributes"),
    [
        (nn.Conv2d(4, 6, 3, padding="same"), "convolution", CONVOLUTION),
        (
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
            "transposed_convolution",
            {**TRANSPOSED, "padding": (1, 1), "output_padding": (1, 1), "groups": 2},
        ),
        (nn.GroupNorm(2, 4), "group_norm", {"groups": 2, "epsilon": 1e-5}),
        (nn.LayerNorm((5, 7)), "layer_norm", {"axes": 2, "epsilon": 1e-5}),
        (nn.Linear(7, 3), "linear", {}),
        (nn.PReLU(4), "prelu", {}),
        (nn.ReLU6(), "hardtanh", {"low": 0.0, "high": 6.0}),
        (nn.SELU(), "elu", {"alpha": 1.6732632423543772, "scale": 1.0507009873554805}),
        (nn.CELU(0.5), "elu", {"alpha": 0.5, "input_scale": 2.0}),
        (
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            "max_pool",
            {**MAXIMA, "window": (3, 3), "padding": (1, 1), "ceil": True},
        ),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "interpolate", {"mode": "linear", "scale": (2.0, 2.0)}),
        (nn.Upsample(scale_factor=(1.7, 0.6), mode="bicubic"), "interpolate", {"mode": "cubic", "scale": (1.7, 0.6)}),
        (nn.Upsample((3, 9), mode="nearest"), "interpolate", {"mode": "nearest", "size": (3, 9)}),
    ],
    ids=str,
)
def test_a_module_is_its_operation(module, operation, attributes):
    torch.manual_seed(0)
    module, x = of_module(module)
    y = THEIRS[operation](x, **dict(module.named_parameters()), **attributes)
    torch.testing.assert_close(y, module(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("module", "kind"), [(nn.Dropout(0.3), "elements"), (nn.Dropout2d(0.3), "maps")], ids=["elements", "maps"]
)
def test_dropout_drops_what_torchs_module_does(module, kind):
    """In the mean as many, so much larger, and maps as a whole."""
    x = torch.ones(40, 50, 2, 2, dtype=torch.float64)
    run = Run(find("dropout", kind=kind), torch.float64, lambda rng, shape: torch.tensor(rng.random(shape)))
    y, theirs = THEIRS["dropout"](x, rate=0.3, kind=kind, run=run), module.train()(x)
    for answer in (y, theirs):
        assert {round(value, 9) for value in answer.unique().tolist()} == {0.0, round(1 / 0.7, 9)}
        assert abs((answer == 0).double().mean().item() - 0.3) < 0.05
        assert (answer.flatten(2).std(2) == 0).all().item() == (kind == "maps")
