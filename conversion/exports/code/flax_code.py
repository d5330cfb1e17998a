"""Flax NNX, as what a network is printed in."""

import re

from conversion.exports.code.flax_layers import LAYERS
from conversion.exports.code.flax_table import ARITHMETIC, EXPRESSIONS, FUNCTIONS
from conversion.exports.code.flax_text import ALIASES, HEAD, HELPERS, LOAD
from conversion.exports.code.language import Language
from conversion.proof.certificate import FLAX as KIND


def _entry(text: str) -> str:
    """A function of one map, by its name where it has one."""
    plain = re.fullmatch(r"([\w.]+)\(x\)", text)
    return plain[1] if plain else f"lambda x: {text}"


_SCRIPT = """
import jax, jax.numpy as jnp
from flax import nnx
jax.config.update("jax_default_matmul_precision", "highest")

def network(dtype):
    model = written.load(WEIGHTS)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    nnx.update(model, jax.tree.map(lambda array: array.astype(dtype), state))
    return model

def answers(model, dtype):
    answer = nnx.jit(lambda model, x: model(x))
    return {number: np.asarray(answer(model, x.astype(dtype))) for number, x in given.items()}

def named(model, kind):
    for place, part in nnx.iter_modules(model):
        layer = "".join(f"{str(one).removesuffix('_')}." for one in place if one != "layers")
        for key, variable in vars(part).items():
            if isinstance(variable, kind):
                value = np.asarray(variable[...])
                if key == "kernel" and isinstance(part, nnx.ConvTranspose):
                    value = np.moveaxis(value, (-2, -1), (0, 1))
                    value = np.flip(value, tuple(range(2, value.ndim)))
                elif key == "kernel":
                    value = np.moveaxis(value, (-1, -2), (0, 1))
                yield layer + written.NAMES.get(key, key), value

@nnx.jit
def step(model, x):
    def loss(model):
        answer = model(x)
        return (answer * cotangent).mean(), answer
    return nnx.grad(loss, has_aux=True)(model)

found |= {f"narrow.{number}": answer for number, answer in answers(network(np.float32), np.float32).items()}
with jax.enable_x64(True):
    model = network(np.float64)
    found |= {f"wide.{number}": answer for number, answer in answers(model, np.float64).items()}
    model.train()
    model.set_attributes(deterministic=True, raise_if_not_found=False)
    gradients, answer = step(model, given["0"].astype(np.float64))
    found["training"] = np.asarray(answer)
    found |= {f"statistic.{name}": value for name, value in named(model, nnx.BatchStat)}
    nnx.update(model, gradients)
    found |= {f"gradient.{name}": value for name, value in named(model, nnx.Param)}
"""

FLAX = Language(
    kind=KIND,
    tool="jax",
    packages=("jax", "flax"),
    channels_last=True,
    module="nnx.Module",
    sequence="nnx.Sequential",
    several="nnx.List",
    forward="__call__",
    array="jax.Array",
    start=(),
    nothing="lambda x: x",
    gap="",
    mapping="nnx.Dict",
    typed=True,
    renamed=frozenset(
        ["rngs", "layers", "train", "eval", "sow", "perturb", "set_attributes", "iter_modules", "iter_children"]
    ),
    layers=LAYERS,
    functions=FUNCTIONS,
    arithmetic=ARITHMETIC,
    expressions=EXPRESSIONS,
    entry=_entry,
    head=HEAD,
    helpers=HELPERS,
    aliases=ALIASES,
    load=LOAD,
    script=_SCRIPT,
)
