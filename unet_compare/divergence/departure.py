"""The first layer that departs, and the switches that are tried on it."""

from collections.abc import Iterable

from conversion.backends.backend import Precision, Runner
from conversion.diagnosis import backward, forward
from conversion.diagnosis.nodes import network_of
from conversion.diagnosis.trials import Trial, cause_of
from conversion.diagnosis.update import step_trials
from conversion.proof.samples import Sample
from unet_compare.divergence.rows import (
    COTANGENT,
    GRADIENT,
    OPTIMIZER,
    STATISTICS,
    STEP,
    TIED,
    by_layer,
    narrow,
    two_updates,
)
from unet_compare.divergence.traces import WHOLE, Traces
from unet_compare.findings import Pass, Row, Table


def first(tables: Iterable[Table]) -> tuple[Table, Row] | None:
    """Float64 before float32; then the first in the order of the tables."""
    rows = [(table, row) for table in tables for row in table.rows]
    return next((found for found in rows if not found[1].wide_ok), None) or next(
        (found for found in rows if not found[1].ok), None
    )


def trials(
    a: Runner, b: Runner, sample: Sample, pass_: Pass, row: Row, traces: Traces, precision: Precision, seed: int
) -> tuple[tuple[Trial, ...], str | None]:
    """The switches that were tried on a row, and the likely cause."""
    theirs, budget = (traces.wide, row.wide_budget) if precision == "float64" else (traces.other, row.budget)
    layer, exact, training = row.layer, traces.exact, pass_ != "eval"
    if layer == WHOLE:
        return (), "no node departs by itself: the programs that are run compute something else than the graph"
    one, other = (network_of(runner, sample.x, traces.handed, traces.back, training=training) for runner in (a, b))
    if row.quantity == STEP:
        given = two_updates(narrow(exact.gradients), seed)
        steps = (a.stepped(given, OPTIMIZER, "float64"), b.stepped(given, OPTIMIZER, precision))
        names = by_layer(exact.gradients)[layer]
        before, *gradients, mine, others = ({name: of[name] for name in names} for of in (a.tensors, *given, *steps))
        found = step_trials(before, gradients, OPTIMIZER, mine, others, precision, budget)
    elif row.quantity == GRADIENT:
        found = backward.parameter_trials(one, layer, exact.gradients, theirs.gradients, precision, budget)
    elif row.quantity in (COTANGENT, TIED):
        passed = exact.cotangents[layer], theirs.cotangents[layer]
        found = backward.output_trials(one, layer, *passed, precision, budget)
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


def _layers(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}
