"""Networks that others wrote, read from their code and proven against it: `python -m benchmarks.networks`.

It prints the README's table, a row for each network as soon as it is proven, and keeps all of them in
docs/data/networks.json; names choose some of them, which are only printed. The figures are the largest differences
between the network's own module and what was read from it, in JAX, both in float64, relative to the largest value;
then those after 20 updates by Adam in both.
"""

import copy
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch import nn

import conversion
from benchmarks.public_networks import NETWORKS, built
from benchmarks.tables import HEADS, proven_row, write
from conversion.backends.jax_backend import drawn
from conversion.backends.torch_backend import drawing_alike
from conversion.proof.checks import EVAL, GRADIENTS, STATISTICS, TRAINING
from conversion.proof.differences import tensor_differences
from conversion.proof.samples import usual_sizes
from unet_core.checkpoints.evidence import Evidence
from unet_core.graph.canonical import FLOATS
from unet_jax.canonical import fill, to_canonical
from unet_jax.network import Network
from unet_torch.canonical import as_numpy

UPDATES = 20
UPDATED = "20 updates"
BUDGETS = {EVAL: 1e-12, TRAINING: 1e-12, GRADIENTS: 1e-11, STATISTICS: 1e-12, UPDATED: 1e-9}
"""The largest differences: those of the proof, and of a trajectory."""

_RATE = 1e-3
_EPSILON = 1e-6
"""Adam's: with less, it makes steps of the rounding in a gradient that is zero, as that of a bias before a norm."""


def within(errors: Mapping[str, float]) -> bool:
    """Whether every difference is within its budget."""
    return all(error <= BUDGETS[name] for name, error in errors.items())


@dataclass(frozen=True)
class Proven:
    """A network, and how far JAX is from its code."""

    name: str
    package: str
    parameters: int
    operations: int
    sizes: str
    evidence: Evidence
    errors: dict[str, float]
    seconds: float
    """That reading took, checks included."""

    @property
    def ok(self) -> bool:
        """Whether every difference is within its budget."""
        return within(self.errors)

    def record(self) -> dict[str, Any]:
        """As the tables read it, with two digits of each difference."""
        errors = {name: float(f"{error:.1e}") for name, error in self.errors.items()}
        kept = ("name", "package", "parameters", "operations", "sizes")
        return {name: getattr(self, name) for name in kept} | {"errors": errors}


def prove(name: str) -> Proven:
    """Read a network from its code, and hold it against that."""
    public = NETWORKS[name]
    module = built(name)
    begun = time.monotonic()
    model: Any = conversion.to_jax(module)
    seconds = time.monotonic() - begun
    package = public.package.replace("_", "-")
    return Proven(
        name.partition(".")[2],
        f"{package} {version(package)}",
        sum(parameter.numel() for parameter in module.parameters()),
        len(model.graph.nodes),
        str(model.graph.sizes),
        model.evidence,
        errors_of(module, model),
        seconds,
    )


def errors_of(module: nn.Module, model: Network) -> dict[str, float]:
    """How far a network in JAX is from the module that it was read from, in float64; by the names in `BUDGETS`.

    Raises:
        SystemExit: the proof says that they are not the same.
    """
    proof = conversion.verify(module, model)
    if not proof.equal:
        raise SystemExit(proof.verdict)
    errors: dict[str, float] = {}
    for check in proof.checks:
        if check.precision == "float64":
            errors[check.quantity] = max(check.error, errors.get(check.quantity, 0.0))
    return errors | {UPDATED: updated(module, model)}


def updated(module: nn.Module, model: Network, *, momentum: float = 0.9) -> float:
    """How far all tensors are apart after 20 updates by Adam in float64, each relative to its largest value.

    A bias is measured against the weight of its layer: one on which the answer does not depend, as that of a key in
    attention, has a gradient of zero, and moves by its rounding.

    Args:
        module: the network's own.
        model: what was read from it.
        momentum: Adam's first beta in JAX; another one than torch's is a control.
    """
    rng = np.random.default_rng(0)
    graph = model.graph
    size = usual_sizes(graph)[0]
    x, wanted = rng.standard_normal((2, *size, graph.in_channels)), rng.standard_normal((2, *graph.answered(size), 1))
    theirs = copy.deepcopy(module).double().train()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=_RATE, eps=_EPSILON)
    given, target = (torch.from_numpy(array).movedim(-1, 1) for array in (x, wanted))
    for _ in range(UPDATES):
        optimizer.zero_grad()
        with drawing_alike():
            answer = theirs(given)
        answer = answer if isinstance(answer, torch.Tensor) else answer[0]
        (answer - target).square().mean().backward()
        optimizer.step()
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.default_matmul_precision("highest"))
        ours = nnx.clone(model)
        wide = {
            key: value.astype(np.float64) if value.dtype in FLOATS else value
            for key, value in to_canonical(ours).items()
        }
        fill(ours, wide)
        ours.train()
        after = _updated_in_jax(ours, jnp.asarray(x), jnp.asarray(wanted), momentum)
    state = {key: as_numpy(value) for key, value in theirs.state_dict().items()}
    reference = {key: state[key] for key, value in after.items() if value.dtype in FLOATS}
    weights = {key: f"{key.removesuffix('bias')}weight" for key in reference if key.endswith("bias")}
    return max(tensor_differences(after, reference, weights).values())


def _updated_in_jax(model: Network, x: Any, wanted: Any, momentum: float) -> dict[str, np.ndarray]:
    optimizer = nnx.Optimizer(model, optax.adam(_RATE, b1=momentum, eps=_EPSILON), wrt=nnx.Param)

    @nnx.jit
    def step(model: Network, optimizer: Any) -> None:
        def loss(model: Network) -> Any:
            return jnp.square(model(x, rngs=drawn) - wanted).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(UPDATES):
        step(model, optimizer)
    return to_canonical(model)


def main(names: list[str]) -> None:
    """Print the table; keep it where it is whole."""
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}", flush=True)
    records = []
    for name in names or NETWORKS:
        found = prove(name)
        records.append(found.record())
        print(proven_row(records[-1]) + ("" if found.ok else "  <- over its budget"), flush=True)
    if not names:
        write("networks", "python -m benchmarks.networks", records)


if __name__ == "__main__":
    main(sys.argv[1:])
