"""How a module's code is followed: at which size, for which sizes, and in which mode."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from torch import nn

from unet_core.errors import ConfigError, UNetError, shown, sized, some
from unet_core.graph import Graph, Sizes
from unet_core.graph.probing import Size, sizes_taken
from unet_core.progress import Progress
from unet_torch.reading.code import Code, Trace
from unet_torch.reading.comparison import EVAL_BUDGET, Check, CodeError, Comparison
from unet_torch.reading.program import UnreadableError
from unet_torch.reading.tracing import traced

_SIZES: Mapping[int, tuple[Size, ...]] = {2: ((95, 63), (64, 96)), 3: ((47, 31, 63), (32, 64, 32))}
"""Where code is traced: odd on every level, then multiples of 32."""
_LARGER: Mapping[int, tuple[Size, ...]] = {
    2: ((191, 255), (256, 192), (512, 576)),
    3: ((64, 64, 96), (128, 96, 128)),
}
"""For networks that take no small ones."""


@dataclass(frozen=True)
class Found:
    """A graph, and what was seen on the way to it."""

    graph: Graph
    trace: Trace
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Followed:
    """What was traced in eval mode, the sizes that it holds at, and those of them that were tried."""

    trace: Trace
    graph: Graph
    tried: tuple[Size, ...]
    free: bool = True


class Reader:
    """Reads one module.

    Args:
        code: the module.
        channels: of the picture; None: those of the first convolution.
        wanted: sizes that the network must take.
        out: which of its outputs is meant.
        progress: is told what comes next.

    Raises:
        UNetError: there is no picture that the code takes.
    """

    def __init__(
        self, code: Code, channels: int | None, wanted: Sequence[Size], out: int | str | None, progress: Progress
    ) -> None:
        self.code = code
        self.wanted = tuple(wanted)
        self.out = out
        self.progress = progress
        self.differences: list[str] = []
        """Where a graph was not the code."""
        self.departed = False
        """Whether a graph was not even the code where it was traced."""
        self.unreadable: list[str] = []
        """Why no graph was traced."""
        ranks = {len(size) for size in wanted}
        if len(ranks) > 1 or not ranks <= {2, 3}:
            raise UNetError("sizes are height and width, or depth, height and width")
        progress("running the code", 0.0)
        self.comparison, self.rank = self._met(channels, *ranks)

    def read(self) -> Found:
        """The graph.

        Raises:
            UNetError: there is none, or it is not the code.
        """
        followed = self._in_general()
        if followed is None or not all(followed.graph.sizes.take(size) for size in self.wanted):
            followed = self._at_wanted(followed)
        self.progress("holding the graph to the code in training mode", 0.6)
        graph, trained, outputs = self._in_training(followed)
        self.progress("holding the graph to the code", 0.8)
        self.comparison.restore()
        inputs = self._inputs(followed)
        checks = [self._checked(graph, followed.trace, *given) for given in inputs] + trained
        if not self.code.exact:
            self.comparison.check_float32(graph, followed.trace, min((size for size, _ in inputs), key=math.prod))
        return Found(graph, followed.trace, tuple(checks), tuple(_notes(followed.trace, outputs)))

    def _met(self, channels: int | None, rank: int | None = None) -> tuple[Comparison, int]:
        """The picture that the code takes."""
        pictures = list(_pictures(self.code.module, channels, rank))
        failed: list[str] = []
        for count, axes in pictures:
            comparison = Comparison(self.code, count)
            for size in self.wanted or (*_SIZES[axes], *_LARGER[axes]):
                try:
                    comparison.own(size)
                except CodeError as error:
                    failed.append(f"{count} channels, {sized(size)}: {error}")
                else:
                    comparison.enliven(size)
                    return comparison, axes
        if not failed:
            raise UNetError("it has no convolution that tells what picture it takes: give an example")
        raise CodeError(f"its code fails on every picture that was tried: {some(failed, most=2)}")

    def _in_general(self) -> _Followed | None:
        """What holds for sizes in general, as many of them as can be."""
        best: _Followed | None = None
        for number, size in enumerate((*_SIZES[self.rank], *self.wanted, *_LARGER[self.rank])):
            if best is not None and (size in _LARGER[self.rank] or not self.differences):
                break
            self.progress(f"following the code at {sized(size)}", 0.1 * min(number, 3))
            found = self._followed(size)
            if found is not None and (best is None or _rank(found) < _rank(best)):
                best = found
            if best is not None and best.graph.sizes.multiple == 1:
                break
        return best

    def _followed(self, size: Size) -> _Followed | None:
        """What is traced at a size, where it holds for more than that."""
        graph, trace = self._graph(size)
        if graph is None or trace is None:
            return None
        tried: list[Size] = []

        @cache
        def holds(other: Size) -> bool:
            good = self._holds(graph, trace, other)
            tried.extend([other] * good)
            return good

        if not holds(size):
            self.departed = True
        sizes = sizes_taken(holds, size, trace.most)
        if sizes is None:
            return None
        kept = tuple(other for other in tried if sizes.take(other))
        return _Followed(trace, replace(graph, sizes=sizes), kept)

    def _graph(self, size: Size, *, free: bool = True) -> tuple[Graph | None, Trace | None]:
        try:
            self.comparison.own(size)
            trace = traced(self.code, self.comparison.channels, size, self.out, training=False, free=free)
        except CodeError:
            return None, None
        except UnreadableError as error:
            if str(error) in self.unreadable:
                raise
            self.unreadable.append(str(error))
            return None, None
        return Graph(self.comparison.channels, trace.program.finished(), self.code.tensors, self.rank), trace

    def _holds(self, graph: Graph, trace: Trace, size: Size) -> bool:
        try:
            check = self.comparison.check(graph, trace, size)
        except CodeError:
            return False
        except UNetError as error:
            self.differences.append(f"{sized(size)}: {error}")
            return False
        if check.answer <= EVAL_BUDGET:
            return True
        self.differences.append(f"{sized(size)}: {check.answer:.1e}")
        return False

    def _at_wanted(self, general: _Followed | None) -> _Followed:
        """What holds at the sizes that are wanted, and is known of these alone."""
        for size in self.wanted:
            self.comparison.own(size)
        for size in self.wanted:
            for free in (True, False):
                graph, trace = self._graph(size, free=free)
                if graph and trace and all(self._holds(graph, trace, other) for other in self.wanted):
                    only = replace(graph, sizes=Sizes(only=self.wanted))
                    return _Followed(trace, only, self.wanted, free)
        if not self.differences and self.unreadable:
            raise UnreadableError(self.unreadable[0])
        if self.wanted:
            sizes = f"; it is for {general.graph.sizes}" if general else ""
            raise UNetError(f"no one graph is the code at {' and '.join(map(sized, self.wanted))}{sizes}")
        where = some(self.differences, most=2)
        if self.departed:
            raise UNetError(f"what was read is not what its code computes: {where} beside it")
        raise UNetError(f"what its code does depends on the size ({where}): name the sizes that you need (--size)")

    def _in_training(self, followed: _Followed) -> tuple[Graph, list[Check], tuple[str, ...]]:
        """The graph with what it computes in training mode, how that was checked, and all that the code returns."""
        graph, trace = followed.graph, followed.trace
        try:
            return self._trained(graph, trace, followed)  # most networks do the same, but for dropout and norms
        except CodeError as error:
            return replace(graph, untrained=f"its code fails in training mode: {error}"), [], trace.outputs
        except UNetError:
            pass
        self.progress("following the code in training mode", 0.7)
        channels = self.comparison.channels
        try:
            trace = traced(self.code, channels, trace.size, self.out, training=True, free=followed.free)
            graph = replace(graph, training=replace(graph, nodes=trace.program.finished()))
        except (UnreadableError, ConfigError) as error:
            why = f"its code could not be followed in training mode: {error}"
            return replace(graph, untrained=why), [], followed.trace.outputs
        return self._trained(graph, trace, followed)

    def _trained(self, graph: Graph, trace: Trace, followed: _Followed) -> tuple[Graph, list[Check], tuple[str, ...]]:
        """The same graph, held to the code in training mode, at the first size that the code takes there."""
        failed: CodeError | None = None
        for size in sorted(followed.tried, key=lambda size: (min(size) < 16, math.prod(size)))[:6]:
            try:
                check, outputs = self.comparison.check_training(graph, trace, self.out, size, 3)
            except CodeError as error:
                failed = error
            else:
                return graph, [check], outputs
        assert failed is not None
        raise failed

    def _checked(self, graph: Graph, trace: Trace, size: Size, batch: int) -> Check:
        check = self.comparison.check(graph, trace, size, batch)
        if not check.answer <= EVAL_BUDGET:
            raise UNetError(f"at {sized(size)}, batch {batch}, the graph answers {check.answer:.1e} beside the code")
        return check

    def _inputs(self, followed: _Followed) -> list[tuple[Size, int]]:
        """Sizes and batches to hold the final graph to the code at."""
        if followed.graph.sizes.only:
            return [(size, batch) for size in self.wanted for batch in (1, 3)]
        tried = sorted(set(followed.tried), key=math.prod)
        odd = [size for size in tried if any(length % 2 for length in size) and len(set(size)) > 1]
        chosen = dict.fromkeys([*odd[:2], tried[0], tried[len(tried) // 2], tried[-1], *self.wanted])
        small = min(chosen, key=math.prod)
        return [*((size, 1) for size in chosen), (small, 3), *((size, 3) for size in odd[:1])]


def _pictures(module: nn.Module, channels: int | None, rank: int | None) -> Iterator[tuple[int, int]]:
    """Channels and dimensions of a picture that it may take."""
    if channels is not None and rank is not None:
        yield channels, rank
        return
    kinds = {nn.Conv2d: 2, nn.Conv3d: 3}
    found = [
        (part.in_channels if channels is None else channels, axes)
        for part in module.modules()
        for kind, axes in kinds.items()
        if isinstance(part, kind) and rank in (None, axes)
    ]
    yield from dict.fromkeys(found)


def _rank(followed: _Followed) -> tuple[int, int]:
    return followed.graph.sizes.multiple, followed.graph.sizes.least


def _notes(trace: Trace, outputs: tuple[str, ...]) -> Iterator[str]:
    if len(trace.outputs) > 1:
        this = shown(trace.outputs[trace.chosen])
        yield f"it answers {len(trace.outputs)} tensors, {some(trace.outputs)}; the graph answers {this}"
    if outputs != trace.outputs:
        yield f"in training mode it answers {len(outputs)} tensors{f', {some(outputs)}' if len(outputs) > 1 else ''}"
