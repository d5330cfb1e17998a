"""How far two networks are apart, layer by layer, and how far they may be."""

from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np

from conversion.backends.backend import Precision, Runner, Trace
from conversion.proof.differences import UNITS, norm_difference
from unet_compare.divergence.traces import BOTH, UNIT, WHOLE, Traces, norms
from unet_compare.findings import Mode, Pass, Row, Table
from unet_core.graph import Graph
from unet_core.graph.canonical import FLOATS, Tensors
from unet_core.graph.family import graph_of
from unet_core.training.settings import Optimizer

NARROWER = UNITS["float64"] / UNITS["float32"]
"""float64's unit roundoff over float32's."""
FACTOR = 32.0
"""How many times that measure B's error may be. In faithful conversions of random networks it is 0.2 to 16 times."""

OUTPUT, STATISTICS, MOVED = "output", "running statistics", "output where the input is moved"
COTANGENT, GRADIENT, STEP = "gradient of the output", "gradient of the parameters", "step of the parameters"
TIED = "gradient of the output, among zeros"

OPTIMIZER = Optimizer()
_MODES: tuple[Mode, ...] = ("isolated", "cumulative")
_PASSES: tuple[Pass, ...] = ("eval", "training", "backward", "update")


def tables_of(
    a: Runner,
    b: Runner,
    predicted: Mapping[str, Traces],
    trained: Mapping[str, Traces],
    programs: tuple[Traces, Traces],
    seed: int,
) -> list[Table]:
    """Every pass: each layer alone first, then what has travelled.

    Args:
        a, b: the networks.
        predicted, trained: what `traced` gave in eval mode, and in training mode.
        programs: what `of_programs` gave.
        seed: of what the second update is given.
    """
    graph = graph_of(a.config).in_mode(training=True)
    whole = _of_programs(*programs)
    tables: list[Table] = []
    for mode in _MODES:
        traces = trained[mode]
        special = mode == "isolated" and "odd" in trained
        run = whole if mode == "cumulative" else dict.fromkeys(whole, ())
        alone, ties = (_moved(trained["odd"], graph), _tied(trained["odd"], graph)) if special else ([], [])
        tables += [
            Table("eval", mode, (*_outputs(predicted[mode]), *run["eval"])),
            Table("training", mode, (*_outputs(traces), *_statistics(traces), *alone, *run["training"])),
            Table("backward", mode, (*_backward(traces, mode, graph), *ties, *run["backward"])),
            Table("update", mode, tuple(_steps(a, b, traces, mode, seed))),
        ]
    return sorted(tables, key=lambda table: _PASSES.index(table.pass_))


def _outputs(traces: Traces) -> list[Row]:
    """Of the nodes that both have."""
    both = [layer for layer in traces.exact.outputs if layer in traces.wide.outputs]
    return [_row(layer, OUTPUT, [layer], "outputs", traces) for layer in both]


def _moved(odd: Traces, graph: Graph) -> list[Row]:
    return [_row(name, MOVED, [name], "outputs", odd) for name in norms(graph) if name in odd.wide.outputs]


def _tied(odd: Traces, graph: Graph) -> list[Row]:
    known = [name for name in reversed(odd.exact.cotangents) if name in norms(graph) and name in odd.wide.cotangents]
    return [_row(name, TIED, [name], "cotangents", odd) for name in known]


def _statistics(traces: Traces) -> list[Row]:
    """The means and variances; a layer's counter is exact, and no part of it."""
    layers = by_layer(_tracked(traces))
    return [_row(layer, STATISTICS, names, "statistics", traces) for layer, names in layers.items()]


def _tracked(traces: Traces) -> list[str]:
    return [name for name, value in traces.exact.statistics.items() if value.dtype in FLOATS]


def _backward(traces: Traces, mode: Mode, graph: Graph) -> list[Row]:
    """From the last layer to the first.

    In float32, errors that have travelled are shown and not judged: a ReLU that rounding tips over moves a gradient by
    a jump, in either framework.
    """
    names, judged = _by_place(traces.exact.gradients, graph), BOTH if mode == "isolated" else ("float64",)
    rows: list[Row] = []
    for layer in [name for name in reversed(traces.exact.cotangents) if name in traces.wide.cotangents]:
        rows.append(_row(layer, COTANGENT, [layer], "cotangents", traces, judged=judged))
        if layer in names:
            rows.append(_row(layer, GRADIENT, names[layer], "gradients", traces, judged=judged))
    return rows


def _steps(a: Runner, b: Runner, traces: Traces, mode: Mode, seed: int) -> list[Row]:
    """What Adam's first updates make of the gradients: of each network's own, or of the reference's.

    They divide a gradient by its size, one of rounding alone as well; so of their own they are shown and not judged.
    """
    isolated = mode == "isolated"
    names = by_layer(traces.exact.gradients)

    def step(runner: Runner, precision: Precision, trace: Trace) -> Trace:
        given = two_updates(narrow(traces.exact.gradients) if isolated else trace.gradients, seed)
        return Trace({}, {}, runner.stepped(given, OPTIMIZER, precision), {})

    exact, own = step(a, "float64", traces.exact), step(a, "float32", traces.own)
    wide, other = step(b, "float64", traces.wide), step(b, "float32", traces.other)
    steps, judged = Traces(exact, own, wide, other, exact, {}, {}), BOTH if isolated else ()
    return [_row(layer, STEP, names[layer], "gradients", steps, judged=judged) for layer in names]


def _of_programs(evaluated: Traces, stepped: Traces) -> dict[Pass, Sequence[Row]]:
    """The rows of the programs that are run."""
    tracked, gradients = _tracked(stepped), list(stepped.exact.gradients)
    return {
        "eval": _outputs(evaluated),
        "training": [*_outputs(stepped), _row(WHOLE, STATISTICS, tracked, "statistics", stepped)],
        "backward": [_row(WHOLE, GRADIENT, gradients, "gradients", stepped, judged=("float64",))],
    }


def _row(
    layer: str,
    quantity: str,
    names: Sequence[str],
    field: str,
    traces: Traces,
    *,
    judged: Container[Precision] = BOTH,
) -> Row:
    """How far the arrays of these names, in this field of a trace, are from the exact ones, all together."""

    def error(trace: Trace) -> float:
        return norm_difference(*({name: getattr(one, field)[name] for name in names} for one in (trace, traces.exact)))

    own = error(traces.own)
    budget = FACTOR * max(own, error(traces.shaken), UNIT)
    return Row(
        layer,
        quantity,
        error(traces.wide),
        budget * NARROWER if "float64" in judged else np.inf,
        own,
        error(traces.other),
        budget if "float32" in judged else np.inf,
    )


def two_updates(gradients: Tensors, seed: int) -> tuple[Tensors, Tensors]:
    """The gradients of two updates: the second ones are the first times random parts from -1 to 1.

    One update would not do: what Adam's betas do to the first its bias corrections undo.
    """
    rng = np.random.default_rng((seed, 4))
    parts = {name: rng.uniform(-1, 1, value.shape) for name, value in gradients.items()}
    return gradients, {name: value * parts[name].astype(value.dtype) for name, value in gradients.items()}


def narrow(tensors: Tensors) -> Tensors:
    """In float32, so that they are the same numbers in each precision."""
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def _by_place(tensors: Tensors, graph: Graph) -> dict[str, list[str]]:
    """The names of the tensors by the first node that has them."""
    left = set(tensors)
    places: dict[str, list[str]] = {}
    for node in graph.nodes:
        own = graph.first_names(node).values()
        found = [name for name in dict.fromkeys(own) if name in left]
        left -= set(found)
        if found:
            places[node.name] = found
    return places


def by_layer(tensors: Iterable[str]) -> dict[str, list[str]]:
    """The names of the tensors by the layer that has them."""
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers
