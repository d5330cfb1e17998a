"""The table of operations: for each its inputs, the roles of its tensors, its attributes, and the shape of its answer.

A row is a function. Its positional parameters are the shapes of its inputs; keywords of the type `Role` are the shapes
of tensors by their role, and the other keywords are its attributes. It returns the shape of its answer. The tables of
`unet_torch.operations` and `unet_jax.operations` have functions of the same names and parameters, which compute it.

Everything has PyTorch's meaning: axes are counted as torch does, maps are NCHW or NCDHW, windows and strides are in the
order of the spatial axes.
"""

from unet_core.graph.operations import (
    activations,
    arithmetic,
    chance,
    constants,
    convolutions,
    interpolation,
    norms,
    pools,
    products,
    reductions,
    shapes,
)
from unet_core.graph.operations.activations import FUNCTIONS
from unet_core.graph.operations.table import (
    OPERATIONS,
    Amounts,
    Dims,
    DropoutKind,
    Dtype,
    Ints,
    Mode,
    Number,
    Operation,
    Padding,
    Pairs,
    Relation,
    Role,
    made_by_rewriting,
    windows,
)

__all__ = [
    "FUNCTIONS",
    "OPERATIONS",
    "Amounts",
    "Dims",
    "DropoutKind",
    "Dtype",
    "Ints",
    "Mode",
    "Number",
    "Operation",
    "Padding",
    "Pairs",
    "Relation",
    "Role",
    "activations",
    "arithmetic",
    "chance",
    "constants",
    "convolutions",
    "interpolation",
    "made_by_rewriting",
    "norms",
    "pools",
    "products",
    "reductions",
    "shapes",
    "windows",
]
