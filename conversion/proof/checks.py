"""Judges what two networks compute from one input, and finds the first layer where they part."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from conversion.backends.backend import Precision, Runner
from conversion.diagnosis.forward import Scene, forward_cause, statistics_trials
from conversion.diagnosis.node_difference import difference
from conversion.diagnosis.nodes import network_of
from conversion.diagnosis.tensors import parameter_cause
from conversion.diagnosis.trials import cause_of, precision_cause
from conversion.proof.differences import (
    UNITS,
    distance,
    largest_difference,
    measures,
    norm_difference,
    tensor_differences,
)
from conversion.proof.samples import Sample
from unet_core.errors import sized
from unet_core.graph import Graph
from unet_core.graph.canonical import FLOATS, Description, Tensors
from unet_core.graph.family import graph_of

EVAL, TRAINING, GRADIENTS, STATISTICS = "eval logits", "training logits", "gradients", "statistics"

FLOAT64_BUDGETS: Mapping[str, float] = {EVAL: 1e-12, TRAINING: 1e-12, GRADIENTS: 1e-11, STATISTICS: 1e-12}
"""The largest difference from the float64 reference, relative to the largest value of the tensor."""

FLOAT32_FACTOR = 1.25
"""How much larger than torch's own float32 error the other's may be, both against the float64 reference."""

FLOAT32_UNIT = UNITS["float32"]
"""float32's unit roundoff: an error of torch's below it counts as this much, no result need be better than rounded."""

FLOAT32_JUDGED = (EVAL, TRAINING, STATISTICS)
"""Gradients are shown, not judged, in float32: a ReLU or a max-pool that rounding tips over moves them by a jump, in
either framework alike, so that the ratio of two such errors is a matter of chance. In float64 they are judged."""

Results = Mapping[str, Tensors]
"""What one network computes from one input: for each quantity above, its tensors by name."""


class Float32Error(NamedTuple):
    """How far a quantity is from its float64 reference."""

    torch: float
    """Computed by torch in float32."""
    other: float
    """By the other network in float32."""
    moved: float = 0.0
    """In float64, of the network whose weights are moved by one unit in the last place; 0: not measured."""


Float32Errors = Mapping[str, Float32Error]


@dataclass(frozen=True)
class Check:
    """One quantity on one input, with its budget."""

    sample: str
    quantity: str
    precision: Precision
    error: float
    """float64: the largest difference of b from a, relative to the largest value of the tensor it is in.
    float32: the Euclidean norm of the difference from the float64 reference, relative to that of the reference; over
    several inputs, the root mean square of these."""
    budget: float | None
    """None: shown, not judged."""
    tensor: str
    """The tensor that the float64 error was found in; empty for logits and in float32."""
    baseline: float | None
    """float32: torch's own error, in doubt together with what weights one unit off move; the budget follows from it."""

    @property
    def ok(self) -> bool:
        """Whether the error is within the budget; an error that is not a number is not."""
        return self.budget is None or bool(self.error <= self.budget)

    @property
    def in_doubt(self) -> bool:
        """Whether an error over the budget is so near to it that chance may have done it."""
        return self.budget is not None and bool(self.budget < self.error <= 4 * self.budget)


@dataclass(frozen=True)
class Departure:
    """The first place where two networks part."""

    layer: str
    """Or the array; empty where the cause is all there is to say."""
    quantity: str
    error: float
    cause: str | None
    """The likely cause, where a known one explains the numbers."""

    def __str__(self) -> str:
        if not self.layer:
            return str(self.cause)
        cause = self.cause or "no known cause explains it"
        size = f", relative error {self.error:.2g}" if np.isfinite(self.error) else ""
        return f"{self.layer} departs first ({self.quantity}{size}): {cause}"


def results_of(runner: Runner, sample: Sample, precision: Precision, *, seed: int) -> Results:
    """Run one network on one input, in eval mode, and in training mode where that is known."""
    evaluated = {EVAL: {"": runner.predict(sample.x, precision)}}
    if isinstance(runner.config, Graph) and runner.config.untrained:
        return evaluated
    step = runner.step(sample.x, cotangent_of(runner.config, sample, seed), precision)
    return {
        **evaluated,
        TRAINING: {"": step.logits},
        GRADIENTS: step.gradients,
        STATISTICS: step.statistics,
    }


def cotangent_of(config: Description, sample: Sample, seed: int) -> np.ndarray:
    """By what each logit in training mode is multiplied in the loss of a proof."""
    batch, *size, _ = sample.x.shape
    channels = config.out_channels
    if isinstance(config, Graph):
        program = config.in_mode(training=True)
        size, channels = list(program.answered(size)), program.out_channels
    return np.random.default_rng(seed + 1).standard_normal((batch, *size, channels), np.float32)


def float64_checks(sample: str, a: Results, b: Results) -> Iterator[Check]:
    """The two networks in float64, where rounding hides no difference."""
    measured = measures(a.get(GRADIENTS, {}))
    for quantity, budget in FLOAT64_BUDGETS.items():
        errors = tensor_differences(b[quantity], a[quantity], measured) if a.get(quantity) else {}
        if not errors:
            continue
        tensor = max(errors, key=lambda key: np.nan_to_num(errors[key], nan=np.inf))
        yield Check(sample, quantity, "float64", errors[tensor], budget, tensor, None)


def float32_errors(reference: Results, torch: Results, other: Results, moved: Results | None = None) -> Float32Errors:
    """How far torch, and the other, are in float32 from the float64 reference, quantity by quantity.

    Args:
        reference: the results in float64.
        torch, other: in float32.
        moved: in float64, with other weights; None: not known.
    """
    found = [torch, other, *([] if moved is None else [moved])]
    return {
        quantity: Float32Error(*(norm_difference(_floats(one[quantity]), reference[quantity]) for one in found))
        for quantity in FLOAT64_BUDGETS
        if _floats(reference.get(quantity, {}))
    }


def float32_checks(sample: str, errors: Sequence[Float32Errors]) -> Iterator[Check]:
    """The other network may err little more than torch does, over all the inputs whose errors are given.

    Where the results are known of weights one unit in the last place off, their distance counts next to torch's error,
    and so does one rounding of the result: of a narrow network torch's error alone may be small by luck.
    """
    for quantity in errors[0]:
        torch, other, moved = np.sqrt(np.mean(np.square([found[quantity] for found in errors]), axis=0)).tolist()
        own = math.hypot(torch, moved, FLOAT32_UNIT if moved else 0.0)
        budget = FLOAT32_FACTOR * max(own, FLOAT32_UNIT) if quantity in FLOAT32_JUDGED else None
        yield Check(sample, quantity, "float32", other, budget, "", own)


def misshaped(a: Runner, b: Runner) -> Departure | None:
    """The first tensor whose shape differs, or the output function: such networks cannot compute the same."""
    shapes = [{key: value.shape for key, value in runner.tensors.items()} for runner in (a, b)]
    for key in (*shapes[0], *shapes[1]):
        one, other = (side.get(key) for side in shapes)
        if one != other:
            return Departure(
                key.rpartition(".")[0], "shapes", np.inf, f"{key} is {_described(one)} in A, {_described(other)} in B"
            )
    outputs = a.output, b.output
    if outputs[0] != outputs[1]:
        return Departure("out", "output", np.inf, f"the network answers {outputs[0]} in A, {outputs[1]} in B")
    return None


def locate(
    a: Runner, b: Runner, sample: Sample, failed: Check, results: tuple[Results, Results], reference: Results
) -> Departure:
    """The first layer that departs in forward order; where only gradients depart, the first in backward order.

    Args:
        a, b: in float32, the network whose own error is the measure comes first.
        failed: the first check over its budget.
        results: of a and b, in the precision of that check.
        reference: the float64 results.
    """
    if failed.quantity in (EVAL, TRAINING):
        for training in (False, True) if failed.quantity == EVAL else (True,):
            found = _first_layer(a, b, sample, failed.precision, training=training)
            if found is not None:
                return found
        return Departure(graph_of(a.config).nodes[-1].name, failed.quantity, failed.error, None)
    ours, theirs, exact = (side[failed.quantity] for side in (*results, reference))
    if failed.precision == "float64":
        measured = measures(exact) if failed.quantity == GRADIENTS else {}
        errors = tensor_differences(theirs, ours, measured)
        budgets = dict.fromkeys(errors, FLOAT64_BUDGETS[failed.quantity])
    else:
        errors = {key: norm_difference({key: value}, exact) for key, value in theirs.items()}
        budgets = {key: FLOAT32_FACTOR * max(norm_difference({key: ours[key]}, exact), FLOAT32_UNIT) for key in errors}
    parted = [key for key in _in_order(ours, a.config) if not errors[key] <= budgets[key]]
    parted = parted or [max(errors, key=lambda key: errors[key])]
    key = parted[-1] if failed.quantity == GRADIENTS else parted[0]
    layer = key.rpartition(".")[0]
    cause = parameter_cause(layer, a.tensors, b.tensors)
    if cause is None and failed.precision == "float64":
        cause = _owner_cause(key, a, b, sample, failed.quantity, ours, theirs)
    quantity = failed.quantity if failed.precision == "float64" else f"{failed.quantity} in float32"
    return Departure(layer, quantity, errors[key], cause)


def _in_order(tensors: Tensors, config: Description) -> list[str]:
    """The keys in forward order."""
    graph = graph_of(config)
    used = (name for node in graph.nodes for name in graph.first_names(node).values())
    return [key for key in dict.fromkeys((*used, *tensors)) if key in tensors]


def _owner_cause(
    key: str, a: Runner, b: Runner, sample: Sample, quantity: str, ours: Tensors, theirs: Tensors
) -> str | None:
    """Why what belongs to a tensor departs while the logits agree, by the nodes that have it."""
    x = sample.x
    handed = a.tracer("float64", training=True)(x).outputs
    one, other = (network_of(runner, x, handed, training=True) for runner in (a, b))
    for node in one.graph.nodes:
        if key not in one.graph.first_names(node).values() or node.name not in handed:
            continue
        budget, nothing = FLOAT64_BUDGETS[quantity], handed[node.name]
        scene = Scene(one, other, node.name, nothing, nothing, "float64", budget)
        cause = cause_of(statistics_trials(scene, ours, theirs)) if quantity == STATISTICS else None
        twin = other.nodes.get(node.name)
        if cause is None and twin is not None:
            cause = difference(node, twin, one, other)
        if cause:
            return cause
    return None


def _first_layer(a: Runner, b: Runner, sample: Sample, precision: Precision, *, training: bool) -> Departure | None:
    reference = a.tracer("float64", training=training)(sample.x).outputs
    theirs = b.tracer(precision, training=training)(sample.x).outputs
    ours = a.tracer(precision, training=training)(sample.x).outputs if precision == "float32" else {}
    quantity = TRAINING if training else EVAL
    for layer in [layer for layer in reference if layer in theirs]:
        value, output = reference[layer], theirs[layer]
        if precision == "float64":
            error = largest_difference(output, value) if output.shape == value.shape else np.inf
            budget = FLOAT64_BUDGETS[quantity]
        else:
            own, error = distance(ours[layer], value), distance(output, value)
            budget = FLOAT32_FACTOR * max(own, FLOAT32_UNIT)
        if not error <= budget:
            one, other = (network_of(side, sample.x, reference, training=training) for side in (a, b))
            cause = forward_cause(Scene(one, other, layer, value, output, precision, budget))
            if precision == "float32":
                return Departure(layer, f"{quantity} in float32", error, cause or precision_cause(error))
            return Departure(layer, quantity, error, cause)
    return None


def _described(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else sized(shape) or "a number"


def _floats(tensors: Tensors) -> dict[str, np.ndarray]:
    return {key: value for key, value in tensors.items() if value.dtype in FLOATS}
