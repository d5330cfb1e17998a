"""A graph beside the code that it was read from, both in float64."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from unet_core.errors import UNetError, first_line, some
from unet_core.graph import Graph
from unet_core.graph.outputs import place_of
from unet_torch.execution import Executed, execute
from unet_torch.reading.code import Code, Trace, float64, quiet, tensors_of
from unet_torch.reading.draws import Drawn, Draws

EVAL_BUDGET = 1e-10
"""Relative to the largest value of the output; both are computed by the same operations, and agree to 1e-14."""
TRAINING_BUDGET = 1e-9
"""Of outputs, gradients and running statistics, relative to the largest value of each."""

FLOAT32_BUDGET = 1e-3
"""Of code and graph in float32; or ten times the graph's own rounding, where that is more."""

_PART = 8_000_000
"""Parameters whose gradients are compared at once: all of them would take as much memory as the network, twice."""
_SEED = 1


class CodeError(UNetError):
    """The user's code fails on an input."""


@dataclass(frozen=True)
class Check:
    """How far the graph is from the code, relative to the largest value."""

    size: tuple[int, ...]
    batch: int
    answer: float
    gradients: float | None = None
    """In training mode."""
    statistics: float | None = None
    """After a step in training mode."""

    @property
    def worst(self) -> float:
        """The largest of them."""
        return max(self.answer, self.gradients or 0.0, self.statistics or 0.0)


class Comparison:
    """Runs a module's own code and graphs that were read from it on the same inputs.

    Args:
        code: the module.
        channels: of the picture.
    """

    def __init__(self, code: Code, channels: int) -> None:
        self.code = code
        self.channels = channels
        self.tensors = {name: value for name, value in code.module.state_dict().items() if name in code.state}
        self._answers: dict[tuple[tuple[int, ...], int, bool], dict[str, Tensor] | str] = {}

    def enliven(self, size: Sequence[int]) -> None:
        """From now on with tensors that let every part count, unless the code then returns no numbers at this size."""
        self.code.enliven()
        self._answers.clear()
        if not all(bool(answer.isfinite().all()) for answer in self.own(size).values()):
            self.restore()

    def restore(self) -> None:
        """From now on with the module's own tensors."""
        self.code.restore()
        self._answers.clear()

    def picture(self, size: Sequence[int], batch: int) -> Tensor:
        """Random numbers, always the same for a size."""
        generator = torch.Generator().manual_seed(_SEED + batch + sum(size))
        return torch.randn(batch, self.channels, *size, generator=generator, dtype=torch.float64)

    def own(self, size: Sequence[int], batch: int = 1, *, random: bool = False) -> dict[str, Tensor]:
        """What the code returns in eval mode: all its tensors, by their places.

        Raises:
            CodeError: it fails.
        """
        key = tuple(size), batch, random
        if key not in self._answers:
            try:
                self._answers[key] = self._run(self.picture(size, batch), Draws(_SEED) if random else None)
            except CodeError as error:
                self._answers[key] = str(error)
        found = self._answers[key]
        if isinstance(found, str):
            raise CodeError(found)
        return found

    def _run(self, x: Tensor, draws: Draws | None, *, training: bool = False) -> dict[str, Tensor]:
        module = self.code.module.train(training)
        drawn = nullcontext() if draws is None else Drawn(draws)
        try:
            exact = float64() if x.dtype is torch.float64 else nullcontext()
            with exact, quiet(), torch.set_grad_enabled(training), drawn:
                return tensors_of(module(x))
        except UNetError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise CodeError(f"{type(error).__name__}: {first_line(error)}") from error

    def check(self, graph: Graph, trace: Trace, size: Sequence[int], batch: int = 1) -> Check:
        """Both in eval mode.

        Raises:
            CodeError: the code fails.
            UNetError: the graph fails.
        """
        drawing = trace.program.draws(training=False)
        theirs = list(self.own(size, batch, random=drawing.total > 0).values())[trace.chosen]
        with torch.no_grad():
            draw = Draws(_SEED, drawing.places)
            ours = _executed(graph, self.tensors, self.picture(size, batch), draw, training=False).answer
        return Check(tuple(size), batch, _apart(ours, theirs))

    def check_float32(self, graph: Graph, trace: Trace, size: Sequence[int]) -> None:
        """Both in eval mode in float32, in which pictures come; afterwards the copy of the module stays in that.

        Raises:
            CodeError: the code fails.
            UNetError: it computes something else than in float64.
        """
        drawing = trace.program.draws(training=False)
        x, names = self.picture(size, 1), self.tensors
        draws = [Draws(_SEED, drawing.places) for _ in range(2)]
        with torch.no_grad():
            exact = _executed(graph, names, x, draws[0], training=False).answer
            state = self.code.module.float().state_dict()
            single = {name: state[name] for name in names}
            ours = _executed(graph, single, x.float(), draws[1], training=False).answer
        answers = self._run(x.float(), Draws(_SEED) if drawing.total else None)
        apart = _apart(ours, list(answers.values())[trace.chosen])
        if not apart <= max(FLOAT32_BUDGET, 10 * _apart(ours, exact)):
            raise UNetError(f"in float32 its code answers {apart:.1e} beside what it computes in float64")

    def check_training(
        self, graph: Graph, trace: Trace, out: int | str | None, size: Sequence[int], batch: int
    ) -> tuple[Check, tuple[str, ...]]:
        """Both in training mode: outputs, the gradients of every parameter, and running statistics after a step.

        Args:
            graph: what was read.
            trace: of its training mode; or of its eval mode, where it is held to be the same.
            out: which of the outputs is meant.
            size: of the picture.
            batch: how many pictures.

        Returns:
            What was found, and the places of all tensors that the code returns.

        Raises:
            CodeError: the code fails, or has no gradient.
            UNetError: something differs.
        """
        state = self.code.module.state_dict(keep_vars=True)
        parameters = {name: state[name] for name in self.tensors if state[name].requires_grad}
        others = {name: state[name].clone() for name in self.tensors if name not in parameters}
        drawing = trace.program.draws(training=True)
        x, draws = self.picture(size, batch), Draws(_SEED)
        try:
            answers = self._run(x, draws, training=True)
            theirs = list(answers.values())[place_of(tuple(answers), out)]
            if draws.made != drawing.total:
                raise UNetError(f"in training mode its code draws {draws.made} times, not {drawing.total} times")
            draw = Draws(_SEED, drawing.places)
            executed = _executed(graph, {**parameters, **others}, x, draw, training=True)
            answer = _apart(executed.answer.detach(), theirs.detach())
            if not answer <= TRAINING_BUDGET:
                raise UNetError(f"in training mode the graph answers {answer:.1e} beside the code")
            used = {name for node in graph.in_mode(training=True).nodes for name in node.tensors.values()}
            statistics = {
                name: _apart(executed.updates.get(name, value), state[name])
                for name, value in others.items()
                if name in used or self.code.tensors[name].kind != "buffer"  # what code counts beside the network
            }
            _judge("the running statistics", statistics)
            weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float64)
            gradients = _gradients((executed.answer * weights).sum(), (theirs * weights).sum(), parameters)
            _judge("the gradients", gradients)
        finally:
            with torch.no_grad():
                for name, value in others.items():
                    state[name].copy_(value)
        worst = (max(found.values(), default=0.0) for found in (gradients, statistics))
        return Check(tuple(size), batch, answer, *worst), tuple(answers)


def _executed(graph: Graph, tensors: Mapping[str, Tensor], x: Tensor, draw: Draws, *, training: bool) -> Executed:
    try:
        return execute(graph, tensors, x, training=training, draw=draw)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UNetError(f"the graph fails where the code does not: {first_line(error)}") from error


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where one cannot be compared."""
    if ours.shape != theirs.shape:
        return float("inf")
    if not theirs.numel() or torch.equal(ours, theirs):
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    numbers = theirs.isfinite()
    if not torch.equal(ours[~numbers].nan_to_num(), theirs[~numbers].nan_to_num()):
        return float("inf")
    largest = theirs[numbers].abs().max()
    return float((ours - theirs)[numbers].abs().max() / largest) if numbers.any() and largest else float("inf")


def _judge(what: str, found: dict[str, float]) -> None:
    wrong = [name for name, apart in found.items() if not apart <= TRAINING_BUDGET]
    if wrong:
        worst = max(found[name] for name in wrong)
        raise UNetError(f"in training mode {what} of {some(wrong, most=4)} are up to {worst:.1e} beside the code's")


def _gradients(ours: Tensor, theirs: Tensor, parameters: dict[str, Tensor]) -> dict[str, float]:
    """How far the gradients of two losses are apart, relative to the largest of the parameter's layer.

    A bias before a normalisation has a gradient of zero: what is found there is rounding of the kernel's.
    """
    apart: dict[str, float] = {}
    largest: dict[str, float] = {}
    for names in _parts(parameters):
        part = [parameters[name] for name in names]
        try:
            wanted = _gradient(theirs, part)
        except RuntimeError as error:
            raise CodeError(f"it has no gradient: {first_line(error)}") from error
        for name, one, other in zip(names, _gradient(ours, part), wanted, strict=True):
            layer = name.rpartition(".")[0]
            apart[name] = float((one - other).abs().max())
            largest[layer] = max(largest.get(layer, 0.0), float(other.abs().max()))
    return {name: _ratio(value, largest[name.rpartition(".")[0]]) for name, value in apart.items()}


def _gradient(loss: Tensor, part: list[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:
        return list(map(torch.zeros_like, part))
    found = torch.autograd.grad(loss, part, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(tensor) if value is None else value for tensor, value in zip(part, found, strict=True)]


def _ratio(apart: float, largest: float) -> float:
    return apart / largest if largest else (float("inf") if apart else 0.0)


def _parts(parameters: dict[str, Tensor]) -> Iterator[list[str]]:
    part: list[str] = []
    for name, tensor in parameters.items():
        if part and sum(parameters[other].numel() for other in part) + tensor.numel() > _PART:
            yield part
            part = []
        part.append(name)
    if part:
        yield part
