"""The proof that what was written answers as the user's network: both run on the same inputs."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from conversion.backends.backend import (
    Precision,
    Runner,
    Step,
    runner_in_either,
    runner_of_checkpoint,
    runner_of_code,
)
from conversion.exports.deployment import Answer, Source, finished
from conversion.exports.programs import Program
from conversion.proof.checks import (
    EVAL,
    FLOAT64_BUDGETS,
    GRADIENTS,
    STATISTICS,
    TRAINING,
    Check,
    Departure,
    cotangent_of,
    float32_checks,
    float32_errors,
    float64_checks,
)
from conversion.proof.proof import NetworkSummary, Proof, described, side_of
from conversion.proof.samples import Input, Sample, neighbour, repeated, samples, usual_sizes
from unet_core.errors import UNetError, some
from unet_core.graph import Graph
from unet_core.graph.graph import pruned
from unet_core.progress import Progress

CLASSES = "classes"
"""The quantity of a check: the part of the pixels that are of another class."""

PREDICTS = "what is exported only predicts"
OTHERWISE = "in training the network computes otherwise, which is not written"
_SURE = 10
"""How many times further than float32 errs two classes have to be apart for their pixel to be judged."""


class Reference:
    """The user's network, by its own code where that is known and tells what is wanted.

    Args:
        source: the network.
        answer: what is wanted of it.
    """

    def __init__(self, source: Source, answer: Answer, name: str) -> None:
        self.source, self.answer = source, answer
        called = source.graph.output
        self.called = answer == "network" or (answer == "probabilities" and called == source.function)
        """Whether what calling it answers is what is wanted, and else its logits are, of which that is made."""
        found, checkpoint = source.opened, source.checkpoint
        if found.live is not None and (self.called or called == "logits"):
            self.runner = runner_of_code(found.live, checkpoint, name).as_called()
        else:
            self.runner = _runner(source, name)
            self.runner = self.runner.as_called() if self.called else self.runner

    def logits(self, x: np.ndarray, precision: Precision, runner: Runner | None = None) -> np.ndarray:
        """Or the answer itself, where it is called for that."""
        return (runner or self.runner).predict(x, precision)

    def answers(self, x: np.ndarray, precision: Precision, runner: Runner | None = None) -> np.ndarray:
        """What is wanted."""
        found = self.logits(x, precision, runner)
        return found if self.called else finished(found, self.source, self.answer)

    def still(self) -> Runner:
        """The network, which drops nothing in training."""
        graph = self.source.graph
        if not any(node.operation == "dropout" for node in graph.nodes):
            return self.runner
        nodes = tuple(
            dataclasses.replace(node, attributes={**node.attributes, "rate": 0.0})
            if node.operation == "dropout"
            else node
            for node in graph.nodes
        )
        checkpoint = dataclasses.replace(self.source.checkpoint, config=dataclasses.replace(graph, nodes=nodes))
        return runner_of_checkpoint(checkpoint, self.runner.framework, self.runner.name).as_called()

    def moved(self, number: int) -> Runner:
        """The network with every weight one unit in the last place off, or not."""
        return self.runner.with_tensors(neighbour(self.runner.tensors, number))


def _runner(source: Source, name: str) -> Runner:
    """In the framework of the file, or else in one that is installed."""
    framework, checkpoint = source.opened.framework, source.checkpoint
    return (
        runner_in_either(checkpoint, name) if framework is None else runner_of_checkpoint(checkpoint, framework, name)
    )


def inputs_of(graph: Graph, config: object, size: tuple[int, ...] | None, batch: int | None) -> list[Sample]:
    """Three batches, of three sizes where the network takes these.

    Args:
        graph: the network.
        config: what describes it.
        size: the only one that what was written takes; None: it takes all that the network takes.
        batch: how many pictures that takes at once; None: any number.
    """
    first = list(samples(config, size=size))  # type: ignore[arg-type]
    if size is None and not graph.sizes.only:
        wanted = [usual_sizes(graph)[0][::-1]] if graph.dimensions == 2 else [*usual_sizes(graph)]
        rng = np.random.default_rng(1)
        for one in wanted[-2:]:
            x = rng.standard_normal((1, *one, graph.in_channels), np.float32)
            first.append(Sample(f"random {'x'.join(map(str, x.shape[:-1]))}", x))
    else:
        first += repeated(first[0], 3 - len(first), seed=1)
    return [_of(sample, batch) for sample in first]


def _of(sample: Sample, batch: int | None) -> Sample:
    if batch is None or batch == len(sample.x):
        return sample
    return Sample(sample.name, np.resize(sample.x, (batch, *sample.x.shape[1:])))


def prove(reference: Reference, program: Program, batches: Sequence[Sample], name: str, progress: Progress) -> Proof:
    """Run both, the program once for all.

    Args:
        reference: the user's network.
        program: what was written.
        batches: the inputs.
        name: of what was written.
        progress: is told before each stage.
    """
    source, pictures = reference.source, [sample.x for sample in batches]
    progress(f"running {name}", 0.0)
    config, graph = source.checkpoint.config, source.graph
    untrained = PREDICTS if not program.trains else graph.untrained or (OTHERWISE if graph.training else "")
    cotangent = cotangent_of(config, batches[0], 0)
    found = program.run(pictures, cotangent)
    checks: list[Check] = []
    for number, sample in enumerate(batches):
        progress(f"{reference.runner.name} on {sample.name}", 0.5 + 0.5 * number / len(batches))
        exact = None if found.wide is None else found.wide[number]
        judged = _classes if reference.answer == "classes" else _numbers
        checks += judged(reference, sample, found.narrow[number], exact)
    if found.step is not None and not untrained:
        checks += _training(reference, found.step, batches[0], cotangent)
    failed = next((check for check in checks if not check.ok), None)
    cause = None if failed is None else f"{failed.quantity} on {failed.sample} are {failed.error:.1e} apart"
    side = NetworkSummary(name, program.tool, "cpu", dict(program.versions), described(config))
    return Proof(
        side_of(reference.runner),
        side,
        0,
        0,
        tuple(checks),
        None if failed is None else Departure("", failed.quantity, failed.error, cause),
        inputs=tuple(Input.of(sample.name, sample.x) for sample in batches),
        evidence=source.checkpoint.evidence,
        untrained=untrained,
    )


def _training(reference: Reference, found: Step, sample: Sample, cotangent: np.ndarray) -> Iterator[Check]:
    """Of a step in training mode, in float64, in which nothing is dropped."""
    step = reference.still().step(sample.x, cotangent, "float64")
    graph = reference.source.graph
    taken = {name for node in pruned(graph.nodes, graph.logits) for name in graph.first_names(node).values()}
    tracked = {name for name in taken if graph.tensors[name].kind == "statistic"}
    lacking = sorted((graph.trained - found.gradients.keys()) | (tracked - found.statistics.keys()))
    if lacking:
        raise UNetError(f"what was written has no {some(lacking)}")
    ours, theirs = (
        {
            TRAINING: {"": one.logits},
            GRADIENTS: {name: one.gradients[name] for name in step.gradients if name in found.gradients},
            STATISTICS: {name: one.statistics[name] for name in step.statistics if name in found.statistics},
        }
        for one in (step, found)
    )
    yield from float64_checks(sample.name, {EVAL: {}, **ours}, theirs)


def _numbers(reference: Reference, sample: Sample, found: np.ndarray, exact: np.ndarray | None) -> Iterator[Check]:
    """Of logits and probabilities: in float64 where there are such, and in float32 by the bounds of every proof."""
    wide = {EVAL: {"": reference.answers(sample.x, "float64")}}
    if found.shape != wide[EVAL][""].shape:
        yield Check(sample.name, EVAL, "float32", np.inf, FLOAT64_BUDGETS[EVAL], "", None)
        return
    if exact is not None:
        yield from float64_checks(sample.name, wide, {EVAL: {"": exact}})
    narrow = {EVAL: {"": reference.answers(sample.x, "float32")}}
    moved = {EVAL: {"": reference.answers(sample.x, "float64", reference.moved(0))}}
    yield from float32_checks(sample.name, [float32_errors(wide, narrow, {EVAL: {"": found}}, moved)])


def _classes(reference: Reference, sample: Sample, found: np.ndarray, _: np.ndarray | None) -> Iterator[Check]:
    """Of every pixel whose class rounding does not decide."""
    wide, narrow = reference.logits(sample.x, "float64"), reference.logits(sample.x, "float32")
    expected = finished(wide, reference.source, "classes")
    if found.shape != expected.shape:
        yield Check(sample.name, CLASSES, "float32", np.inf, 0.0, "", None)
        return
    least = _SURE * float(np.abs(narrow - wide).max())
    ranked = np.sort(wide, -1)
    apart = np.abs(ranked[..., -1])
    if wide.shape[-1] > 1 and reference.source.output == "sigmoid":
        apart = np.minimum(apart, np.where(ranked[..., -1] > 0, ranked[..., -1] - ranked[..., -2], np.inf))
    elif wide.shape[-1] > 1:
        apart = ranked[..., -1] - ranked[..., -2]
    wrong = (found != expected) & (apart > least)
    yield Check(sample.name, CLASSES, "float32", float(wrong.mean()), 0.0, "", None)
