"""What both networks make of one input, node by node and as the programs that are run, in either precision."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace

import numpy as np

from conversion.backends.backend import Forced, Precision, Runner, Trace
from conversion.proof.differences import UNITS
from unet_core.graph import INPUT, Graph
from unet_core.graph.family import graph_of

UNIT = UNITS["float32"]
"""An error of A's in float32 that is below it counts as this much."""
FAR = 1000.0
"""Standard deviations by which BatchNorm's inputs are moved to see whether its statistics lose digits: a careful one
errs by some `FAR * UNIT`, E[x^2] - E[x]^2 by `FAR**2 * UNIT` and more."""
WHOLE = "the whole network"
"""The layer of rows that are of no node: of the program that is run, which may be a rewritten graph, or a module's own
code; node by node the graph is run as it is."""

BOTH: tuple[Precision, ...] = ("float64", "float32")


@dataclass(frozen=True)
class Traces:
    """The passes on one input in one mode."""

    exact: Trace
    """A's in float64."""
    own: Trace
    """A's in float32."""
    wide: Trace
    """B's in float64."""
    other: Trace
    """B's in float32."""
    shaken: Trace
    """A's in float64, where all that is given is one unit roundoff of float32 larger or smaller."""
    handed: Mapping[str, np.ndarray]
    """What the layers of the exact one took in and handed on."""
    back: Mapping[str, np.ndarray]
    """What they handed back."""


def traced(a: Runner, b: Runner, x: np.ndarray, cotangent: np.ndarray | None, seed: int) -> dict[str, Traces]:
    """Both networks as they are, and fed; in training also fed what is "odd": see `_odd`."""
    rng = np.random.default_rng((seed, 2))
    exact, wide, own, other = (
        runner.tracer(precision, training=cotangent is not None) for precision in BOTH for runner in (a, b)
    )

    def all_of(forced: Forced | None, *, still: Container[str] = ()) -> Traces:
        reference = exact(x, cotangent, forced)
        return Traces(
            reference,
            own(x, cotangent, forced),
            wide(x, cotangent, forced),
            other(x, cotangent, forced),
            exact(_shaken(x, rng), cotangent, forced and _all_shaken(forced, rng, still)),
            {**reference.outputs, **(forced.outputs if forced else {})},
            {**reference.cotangents, **(forced.cotangents if forced else {})},
        )

    plain = all_of(None)
    forced = Forced.of(plain.exact)
    found = {"cumulative": plain, "isolated": all_of(forced)}
    graph = graph_of(a.config).in_mode(training=True)
    if cotangent is None or not norms(graph):
        return found
    return {**found, "odd": all_of(_odd(forced, norms(graph)), still=norms(graph))}


def of_programs(a: Runner, b: Runner, x: np.ndarray, cotangent: np.ndarray, seed: int) -> tuple[Traces, Traces]:
    """Of the programs that are run: of a prediction, and of a step of training."""
    moved = _shaken(x, np.random.default_rng((seed, 5)))

    def predicted(runner: Runner, precision: Precision, given: np.ndarray = x) -> Trace:
        return Trace({WHOLE: runner.predict(given, precision)}, {}, {}, {})

    def trained(runner: Runner, precision: Precision, given: np.ndarray = x) -> Trace:
        done = runner.step(given, cotangent, precision)
        return Trace({WHOLE: done.logits}, {}, done.gradients, done.statistics)

    def all_of(run: Callable[..., Trace]) -> Traces:
        exact, own, wide, other = (run(runner, precision) for runner in (a, b) for precision in BOTH)
        return Traces(exact, own, wide, other, run(a, "float64", moved), {}, {})

    return all_of(predicted), all_of(trained)


def norms(graph: Graph) -> dict[str, str]:
    """The BatchNorms that take the batch's statistics, each with the node before it, whose output they alone take."""
    uses = graph.uses()
    return {
        node.name: node.inputs[0]
        for node in graph.nodes
        if node.operation == "batch_norm"
        and not node.attributes["frozen"]
        and node.inputs[0] != INPUT
        and uses[node.inputs[0]] == 1
    }


def _odd(forced: Forced, norms: Mapping[str, str]) -> Forced:
    """What is seldom met by chance: BatchNorm is fed what was moved by `FAR` standard deviations of each channel; what
    it hands on are multiples of half of one, so that there are zeros for the ReLUs.
    """
    outputs = dict(forced.outputs)
    for name, value in forced.outputs.items():
        if name not in norms and name not in norms.values():
            continue
        deviation = value.std((0, *range(2, value.ndim)), np.float64, keepdims=True).astype(np.float32)
        if name not in norms:
            outputs[name] = value + np.float32(FAR) * deviation
        else:
            grid = np.where(deviation > 0, deviation / 2, np.float32(1))
            outputs[name] = np.round(value / grid) * grid
    return replace(forced, outputs=outputs)


def _shaken(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each number one unit roundoff of float32 larger or smaller."""
    return value * (1 + UNIT * rng.choice((-1.0, 1.0), value.shape))


def _all_shaken(forced: Forced, rng: np.random.Generator, still: Container[str]) -> Forced:
    """But for the outputs of the layers that are `still`."""
    outputs = {name: value if name in still else _shaken(value, rng) for name, value in forced.outputs.items()}
    return Forced(outputs, {name: _shaken(value, rng) for name, value in forced.cotangents.items()})
