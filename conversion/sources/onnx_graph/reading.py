"""The network of an ONNX file: read as a graph, and held against the file itself, which onnxruntime runs."""

import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from conversion.backends.backend import runner_in_either
from conversion.backends.frameworks import importing
from conversion.proof.checks import EVAL, Check, float32_checks, float32_errors
from conversion.proof.differences import largest_difference
from conversion.proof.samples import neighbour
from conversion.sources.onnx_graph.file import program_of
from conversion.sources.onnx_graph.translation import translated
from conversion.sources.onnx_graph.values import Program
from unet_core.checkpoints.checkpoint import Checkpoint, Reading
from unet_core.checkpoints.evidence import UNCHECKED, Evidence
from unet_core.errors import MissingFrameworkError, UNetError, first_line, sized, some
from unet_core.files import sha256_of
from unet_core.graph import Graph, Sizes
from unet_core.graph.probing import Size, sizes_taken
from unet_core.graph.sizes import evaluate

_SIZES: dict[int, tuple[Size, ...]] = {
    2: ((95, 63), (64, 96), (191, 255), (256, 192)),
    3: ((47, 31, 63), (32, 64, 32), (64, 64, 96)),
}
"""Where it is tried first: odd on every level, then multiples of 32; then larger ones."""
_CLOSE = 1e-3
"""Relative to the largest value: where they are further apart, the graph is not the file."""
_LARGEST = 2**28
"""Numbers of one map."""
_FURTHER = 4
"""How many times further from float64 than a proof allows in float32 it may be: onnxruntime adds up in other orders."""
_NOTES = (
    "an ONNX file says how a network predicts, not how it was trained: BatchNorm is in the convolutions or stays as it "
    "is, and nothing is dropped",
)


class Session:
    """The file's own program.

    Args:
        model: its bytes.
        program: what it is.

    Raises:
        UNetError: onnxruntime does not open it.
        MissingFrameworkError: it is not installed.
    """

    def __init__(self, model: bytes, program: Program) -> None:
        with importing():
            import onnxruntime
        self.version = f"onnxruntime {onnxruntime.__version__}"
        self.batch = program.shape[0]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no class of their own
            raise UNetError(f"onnxruntime does not open it: {first_line(error)}") from error
        self._picture = program.picture

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Of pictures, channels last; as many at once as it takes.

        Raises:
            UNetError: it fails, as at sizes that it does not take.
        """
        count = self.batch or len(x)
        given = np.resize(x, (math.ceil(len(x) / count) * count, *x.shape[1:]))
        try:
            found = [
                self._session.run(None, {self._picture: np.moveaxis(part, -1, 1)})[0]
                for part in np.split(given, len(given) // count)
            ]
        except Exception as error:  # as above
            raise UNetError(f"onnxruntime does not run it: {first_line(error)}") from error
        return np.moveaxis(np.concatenate(found)[: len(x)], 1, -1)


def read(path: Path, model: Any, *, sizes: Sequence[Size] = (), out: int | str | None = None) -> Checkpoint:
    """The network of a file, which is known to answer as the file does.

    Args:
        path: the file.
        model: what `model_at` made of it.
        sizes: that it must take.
        out: which of several outputs is meant.

    Raises:
        UNetError: it is no sound file; operations have no row; or the graph does not answer as the file.
        MissingFrameworkError: onnx or onnxruntime is not installed, or neither framework.
    """
    program, alone = program_of(path, model, out)
    try:
        graph, tensors = translated(program)
        held = _Held(graph, tensors, Session(alone, program), path.name)
        graph = dataclasses.replace(graph, sizes=held.sizes(program, tuple(sizes)))
        worst = held.judged(graph.sizes)
    except MissingFrameworkError:
        raise
    except UNetError as error:
        raise UNetError(f"{path}: {error}") from error
    batches = f"batches of {program.shape[0]}" if program.shape[0] else "batches of 1, 3"
    detail = (
        f"by {held.session.version}, float32, eval mode alone, {len(held.seen)} sizes, {batches}, error of "
        f"{worst.error:.1e}, {worst.baseline or 0.0:.1e} in float32 here"
    )
    evidence = Evidence("code", f"{path.name}, sha256 {sha256_of(path)}", detail, eval_alone=True)
    reading = Reading(sure="certain: read from its graph", assumed=_NOTES)
    return Checkpoint(graph, tensors, config_stored=False, digests_stored=False, reading=reading, evidence=evidence)


class _Held:
    """A graph beside the file."""

    def __init__(self, graph: Graph, tensors: dict[str, np.ndarray], session: Session, name: str) -> None:
        self.graph, self.session = graph, session
        checkpoint = Checkpoint(graph, tensors, evidence=UNCHECKED)
        self.runner = runner_in_either(checkpoint, name).as_called()
        self.differences: list[str] = []
        """Where they were not the same."""
        self.seen: list[Size] = []
        """Where they were."""

    def sizes(self, program: Program, wanted: tuple[Size, ...]) -> Sizes:
        """Those that the network takes.

        Raises:
            UNetError: there are none, or not those that are wanted.
        """
        fixed = program.shape[2:]
        if any(fixed):
            only = tuple(one or other for one, other in zip(fixed, program.traced[1:], strict=True))
            wanted = wanted or (only,)
        found = None if any(fixed) else self._general()
        if found is None or not all(map(found.take, wanted)):
            if not wanted or not all(map(self._holds, wanted)):
                raise UNetError(
                    f"the graph that was read answers otherwise than the file: {some(self.differences, most=2)}"
                )
            self.seen = list(wanted)
            return Sizes(only=wanted)
        self.seen = [*(size for size in self.seen if found.take(size)), *wanted]
        return found

    def _general(self) -> Sizes | None:
        best: tuple[Sizes, list[Size]] | None = None
        for size in _SIZES[self.graph.dimensions]:
            self.seen = []
            found = sizes_taken(cache(self._holds), size)
            if found is not None and (best is None or found.multiple < best[0].multiple):
                best = found, self.seen
            if best is not None and (best[0].multiple == 1 or min(size) > 100):
                break
        self.seen = best[1] if best else []
        return best[0] if best else None

    def _holds(self, size: Size) -> bool:
        x = _picture(self.graph, size, 1)
        try:
            self._bound(size)
            theirs = self.session.predict(x)
        except UNetError as error:
            self.differences.append(f"{sized(size)}: {error}")
            return False
        try:
            ours = self.runner.predict(x, "float64")
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            self.differences.append(f"{sized(size)}: the graph fails where the file does not: {first_line(error)}")
            return False
        apart = largest_difference(ours, theirs) if ours.shape == theirs.shape else math.inf
        if apart <= _CLOSE:
            self.seen.append(size)
            return True
        self.differences.append(f"{sized(size)}: {apart:.1e} beside it")
        return False

    def _bound(self, size: Size) -> None:
        sizes = self.graph.sizes_of(self.session.batch or 1, size)
        for name, shape in self.graph.shapes.items():
            numbers = math.prod(evaluate(length, sizes) for length in shape)
            if numbers > _LARGEST:
                raise UNetError(f"{name} would have {numbers} numbers")

    def judged(self, sizes: Sizes) -> Check:
        """What is furthest from the file, of several sizes, each by the budget that a proof has in float32.

        Raises:
            UNetError: it is too far.
        """
        tried = sorted(set(self.seen), key=math.prod)
        odd = [size for size in tried if any(length % 2 for length in size) and len(set(size)) > 1]
        chosen = [*dict.fromkeys([*odd[-1:], tried[0], tried[len(tried) // 2], tried[-1], *sizes.only])]
        found = [self._judged(size, batch) for size in chosen for batch in ((1, 3) if size == tried[0] else (1,))]
        wrong = next((check for check in found if not check.ok), None)
        if wrong is not None:
            raise UNetError(
                f"the graph that was read answers otherwise than the file: {wrong.error:.1e} beside it on "
                f"{wrong.sample}, where float32 allows {wrong.budget:.1e}"
            )
        return max(found, key=lambda check: check.error)

    def _judged(self, size: Size, batch: int) -> Check:
        x = _picture(self.graph, size, batch)
        moved = self.runner.with_tensors(neighbour(self.runner.tensors, 0))
        wide, other = (runner.predict(x, "float64") for runner in (self.runner, moved))
        narrow, theirs = self.runner.predict(x, "float32"), self.session.predict(x)
        errors = float32_errors(*({EVAL: {"": one}} for one in (wide, narrow, theirs, other)))
        (check,) = float32_checks(f"{batch}x{sized(size)}", [errors])
        return dataclasses.replace(check, budget=_FURTHER * (check.budget or 0.0))


def _picture(graph: Graph, size: Size, batch: int) -> np.ndarray:
    shape = (batch, *size, graph.in_channels)
    return np.random.default_rng((batch, *size)).standard_normal(shape, np.float32)
