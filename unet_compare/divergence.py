"""Where two networks part: layer by layer, forward, backward and in an update, against a float64 reference.

Each pass is run twice: as it is, so that errors travel from layer to layer, and with each layer fed the reference's
numbers, so that it errs by itself alone. What rounding does is not guessed but measured: A's own float32 error at a
layer, or what rounding the layer's input would do to A's float64 answer, if that is more, is the measure of B's error
there; and the same times the ratio of the two unit roundoffs of what float64 may leave.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conversion.backends.backend import Forced, Precision, Runner, Trace
from conversion.diagnosis import backward, forward
from conversion.diagnosis.nodes import network_of
from conversion.diagnosis.trials import Trial, cause_of
from conversion.diagnosis.update import step_trials
from conversion.proof.differences import UNITS, norm_difference
from conversion.proof.samples import Sample
from unet_compare.findings import Divergence, Mode, Pass, Row, Table
from unet_core.graph import INPUT, Graph
from unet_core.graph.canonical import FLOATS, Tensors
from unet_core.graph.family import graph_of
from unet_core.progress import Progress, silent
from unet_core.training.settings import Optimizer

UNIT = UNITS["float32"]
"""An error of A's in float32 that is below it counts as this much."""
NARROWER = UNITS["float64"] / UNITS["float32"]
"""float64's unit roundoff over float32's."""
FACTOR = 32.0
"""How many times that measure B's error may be. In faithful conversions of random networks it is 0.2 to 16 times."""
FAR = 1000.0
"""Standard deviations by which BatchNorm's inputs are moved to see whether its statistics lose digits: a careful one
errs by some `FAR * UNIT`, E[x^2] - E[x]^2 by `FAR**2 * UNIT` and more."""

OUTPUT, STATISTICS, MOVED = "output", "running statistics", "output where the input is moved"
COTANGENT, GRADIENT, STEP = "gradient of the output", "gradient of the parameters", "step of the parameters"
TIED = "gradient of the output, among zeros"
WHOLE = "the whole network"
"""The layer of rows that are of no node: of the program that is run, which may be a rewritten graph, or a module's own
code; node by node the graph is run as it is."""

_BOTH: tuple[Precision, ...] = ("float64", "float32")
_MODES: tuple[Mode, ...] = ("isolated", "cumulative")
_PASSES: tuple[Pass, ...] = ("eval", "training", "backward", "update")
_OPTIMIZER = Optimizer()


@dataclass(frozen=True)
class _Traces:
    """The answers to one input in one mode."""

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


def divergence(a: Runner, b: Runner, sample: Sample, *, seed: int = 0, progress: Progress = silent) -> Divergence:
    """Trace both networks on one input, judge every layer, and try the switches on the first that departs.

    Args:
        a, b: networks whose tensors have the same shapes; A in float64 is the reference.
        sample: the input, float32.
        seed: of the gradient that is sent backward.
        progress: called before each stage with a few words and the fraction that is done.
    """
    shape = a.predict(sample.x, "float32").shape
    cotangent = np.random.default_rng(seed + 1).standard_normal(shape, np.float32)
    progress("layer by layer, eval", 0.0)
    predicted = _traced(a, b, sample.x, None, seed)
    progress("layer by layer, training", 0.3)
    trained = _traced(a, b, sample.x, cotangent, seed)
    progress("layer by layer, update", 0.9)
    graph = graph_of(a.config).in_mode(training=True)
    whole = _whole(a, b, sample.x, cotangent, seed)
    tables: list[Table] = []
    for mode in _MODES:
        traces = trained[mode]
        special = mode == "isolated" and "odd" in trained
        run = whole if mode == "cumulative" else dict.fromkeys(whole, ())
        alone, tied = (_moved(trained["odd"], graph), _tied(trained["odd"], graph)) if special else ([], [])
        tables += [
            Table("eval", mode, (*_outputs(predicted[mode]), *run["eval"])),
            Table("training", mode, (*_outputs(traces), *_statistics(traces), *alone, *run["training"])),
            Table("backward", mode, (*_backward(traces, mode, graph), *tied, *run["backward"])),
            Table("update", mode, tuple(_steps(a, b, traces, mode, seed))),
        ]
    tables.sort(key=lambda table: _PASSES.index(table.pass_))  # each alone first, then what has travelled
    part = _first(tables)
    if part is None:
        return Divergence(sample.name, tuple(tables), None, None, None, None, (), None)
    table, row = part
    error = row.other if row.wide_ok else row.wide
    parted: Precision = "float32" if row.wide_ok else "float64"
    progress(f"switching what {row.layer} means", 0.95)
    special = row.quantity in (MOVED, TIED)
    traces = (predicted if table.pass_ == "eval" else trained)["odd" if special else table.mode]
    tried, cause = _trials(a, b, sample, table.pass_, row, traces, parted, seed)
    return Divergence(sample.name, tuple(tables), row.layer, row.quantity, parted, error, tried, cause)


def _traced(a: Runner, b: Runner, x: np.ndarray, cotangent: np.ndarray | None, seed: int) -> dict[str, _Traces]:
    """Both networks as they are, and fed; in training also fed what is "odd": see `_odd`."""
    rng = np.random.default_rng((seed, 2))
    exact, wide, own, other = (
        runner.tracer(precision, training=cotangent is not None) for precision in _BOTH for runner in (a, b)
    )

    def all_of(forced: Forced | None, *, still: Container[str] = ()) -> _Traces:
        reference = exact(x, cotangent, forced)
        return _Traces(
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
    if cotangent is None or not _norms(graph):
        return found
    return {**found, "odd": all_of(_odd(forced, _norms(graph)), still=_norms(graph))}


def _whole(a: Runner, b: Runner, x: np.ndarray, cotangent: np.ndarray, seed: int) -> dict[Pass, Sequence[Row]]:
    """The rows of the programs that are run."""
    shaken = _shaken(x, np.random.default_rng((seed, 5)))

    def predicted(runner: Runner, precision: Precision, given: np.ndarray = x) -> Trace:
        return Trace({WHOLE: runner.predict(given, precision)}, {}, {}, {})

    def trained(runner: Runner, precision: Precision, given: np.ndarray = x) -> Trace:
        done = runner.step(given, cotangent, precision)
        return Trace({WHOLE: done.logits}, {}, done.gradients, done.statistics)

    def all_of(run: Callable[..., Trace]) -> _Traces:
        exact, own, wide, other = (run(runner, precision) for runner in (a, b) for precision in _BOTH)
        return _Traces(exact, own, wide, other, run(a, "float64", shaken), {}, {})

    evaluated, stepped = all_of(predicted), all_of(trained)
    statistics, gradients = _tracked(stepped), list(stepped.exact.gradients)
    return {
        "eval": _outputs(evaluated),
        "training": [*_outputs(stepped), _row(WHOLE, STATISTICS, statistics, "statistics", stepped)],
        "backward": [_row(WHOLE, GRADIENT, gradients, "gradients", stepped, judged=("float64",))],
    }


def _norms(graph: Graph) -> dict[str, str]:
    """The BatchNorms that take the batch's statistics, each with the node before it, whose answer they alone take."""
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


def _row(
    layer: str,
    quantity: str,
    names: Sequence[str],
    field: str,
    traces: _Traces,
    *,
    judged: Container[Precision] = _BOTH,
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


def _outputs(traces: _Traces) -> list[Row]:
    """Of the nodes that both have."""
    both = [layer for layer in traces.exact.outputs if layer in traces.wide.outputs]
    return [_row(layer, OUTPUT, [layer], "outputs", traces) for layer in both]


def _moved(odd: _Traces, graph: Graph) -> list[Row]:
    return [_row(name, MOVED, [name], "outputs", odd) for name in _norms(graph) if name in odd.wide.outputs]


def _tied(odd: _Traces, graph: Graph) -> list[Row]:
    norms = [name for name in reversed(odd.exact.cotangents) if name in _norms(graph) and name in odd.wide.cotangents]
    return [_row(name, TIED, [name], "cotangents", odd) for name in norms]


def _statistics(traces: _Traces) -> list[Row]:
    """The means and variances; a layer's counter is exact, and no part of it."""
    layers = _by_layer(_tracked(traces))
    return [_row(layer, STATISTICS, names, "statistics", traces) for layer, names in layers.items()]


def _tracked(traces: _Traces) -> list[str]:
    return [name for name, value in traces.exact.statistics.items() if value.dtype in FLOATS]


def _backward(traces: _Traces, mode: Mode, graph: Graph) -> list[Row]:
    """From the last layer to the first.

    In float32, errors that have travelled are shown and not judged: a ReLU that rounding tips over moves a gradient by
    a jump, in either framework.
    """
    names, judged = _by_place(traces.exact.gradients, graph), _BOTH if mode == "isolated" else ("float64",)
    rows: list[Row] = []
    for layer in [name for name in reversed(traces.exact.cotangents) if name in traces.wide.cotangents]:
        rows.append(_row(layer, COTANGENT, [layer], "cotangents", traces, judged=judged))
        if layer in names:
            rows.append(_row(layer, GRADIENT, names[layer], "gradients", traces, judged=judged))
    return rows


def _steps(a: Runner, b: Runner, traces: _Traces, mode: Mode, seed: int) -> list[Row]:
    """What Adam's first updates make of the gradients: of each network's own, or of the reference's.

    They divide a gradient by its size, one of rounding alone as well; so of their own they are shown and not judged.
    """
    isolated = mode == "isolated"
    names = _by_layer(traces.exact.gradients)

    def step(runner: Runner, precision: Precision, trace: Trace) -> Trace:
        given = _given(_narrow(traces.exact.gradients) if isolated else trace.gradients, seed)
        return Trace({}, {}, runner.stepped(given, _OPTIMIZER, precision), {})

    exact, own = step(a, "float64", traces.exact), step(a, "float32", traces.own)
    wide, other = step(b, "float64", traces.wide), step(b, "float32", traces.other)
    steps, judged = _Traces(exact, own, wide, other, exact, {}, {}), _BOTH if isolated else ()
    return [_row(layer, STEP, names[layer], "gradients", steps, judged=judged) for layer in names]


def _given(gradients: Tensors, seed: int) -> tuple[Tensors, Tensors]:
    """The gradients of two updates: the second ones are the first times random parts from -1 to 1.

    One update would not do: what Adam's betas do to the first its bias corrections undo.
    """
    rng = np.random.default_rng((seed, 4))
    parts = {name: rng.uniform(-1, 1, value.shape) for name, value in gradients.items()}
    return gradients, {name: value * parts[name].astype(value.dtype) for name, value in gradients.items()}


def _narrow(tensors: Tensors) -> Tensors:
    """In float32, so that they are the same numbers in each precision."""
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def _first(tables: Iterable[Table]) -> tuple[Table, Row] | None:
    """Float64 before float32; then the first in the order of the tables."""
    rows = [(table, row) for table in tables for row in table.rows]
    return next((found for found in rows if not found[1].wide_ok), None) or next(
        (found for found in rows if not found[1].ok), None
    )


def _trials(
    a: Runner, b: Runner, sample: Sample, pass_: Pass, row: Row, traces: _Traces, precision: Precision, seed: int
) -> tuple[tuple[Trial, ...], str | None]:
    """The switches that were tried on a row, and the likely cause."""
    theirs, budget = (traces.wide, row.wide_budget) if precision == "float64" else (traces.other, row.budget)
    layer, exact, training = row.layer, traces.exact, pass_ != "eval"
    if layer == WHOLE:
        return (), "no node departs by itself: the programs that are run compute something else than the graph"
    one, other = (network_of(runner, sample.x, traces.handed, traces.back, training=training) for runner in (a, b))
    if row.quantity == STEP:
        given = _given(_narrow(exact.gradients), seed)
        steps = (a.stepped(given, _OPTIMIZER, "float64"), b.stepped(given, _OPTIMIZER, precision))
        names = _by_layer(exact.gradients)[layer]
        before, *gradients, mine, others = ({name: of[name] for name in names} for of in (a.tensors, *given, *steps))
        found = step_trials(before, gradients, _OPTIMIZER, mine, others, precision, budget)
    elif row.quantity == GRADIENT:
        found = backward.parameter_trials(one, layer, exact.gradients, theirs.gradients, precision, budget)
    elif row.quantity in (COTANGENT, TIED):
        answers = exact.cotangents[layer], theirs.cotangents[layer]
        found = backward.output_trials(one, layer, *answers, precision, budget)
    else:
        nodes = [node.name for node in one.graph.nodes if layer in _layers(one.graph.first_names(node).values())]
        name = layer if row.quantity != STATISTICS else nodes[0]
        scene = forward.Scene(one, other, name, exact.outputs[name], theirs.outputs[name], precision, budget)
        if row.quantity == STATISTICS:
            found = forward.statistics_trials(scene, exact.statistics, theirs.statistics)
        else:
            found = forward.trials(scene)
        return found, forward.tensor_cause(scene) or cause_of(found)
    return found, cause_of(found)


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


def _layers(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def _by_layer(tensors: Iterable[str]) -> dict[str, list[str]]:
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers
