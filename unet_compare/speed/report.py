"""What a speed measurement found, and what it makes of that."""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unet_compare.speed.cores import APART
from unet_compare.speed.plan import BY_NAME, Candidate, Case, Framework
from unet_core.graph.canonical import Description
from unet_core.graph.chance import draws
from unet_core.graph.family import graph_of
from unet_core.graph.summary import operations

SCHEMA = 1
Handover = tuple[float | None, float | None]
"""`unet_compare.speed.cores.handover` before the calls of a round and after them."""


class Memory(NamedTuple):
    """Bytes that the process (on a CPU) or the framework (on its device) has; None where nothing tells."""

    before: int | None
    """Before the network is made."""
    rest: int | None
    """Between two calls: weights, the optimiser's state, and on a CPU what compiling left behind."""
    peak: int | None
    """At most, during a call."""


@dataclass(frozen=True)
class Found:
    """What the process of a candidate told of one case."""

    candidate: Candidate
    seconds: tuple[float, ...]
    """Of every round, the median of its calls."""
    matmuls: tuple[float, ...]
    """Of every round, the operations per second of a product of large matrices, on the same device and precision."""
    handovers: tuple[Handover, ...]
    """Of every round."""
    compile_seconds: float
    """The first call's, less a later one's."""
    memory: Memory
    answer: tuple[float, ...]
    """A part of the first one."""

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Figures:
    """A candidate beside the reference."""

    name: str
    framework: Framework
    seconds: tuple[float, ...]
    """Of every round."""
    median: float
    ratios: tuple[float, ...]
    """To the reference's seconds in the same round."""
    ratio: float
    """Their median."""
    spread: tuple[float, float]
    """The smallest and the largest."""
    operations_per_second: float
    """Of the network as it is defined, in the median."""
    matmuls: tuple[float, ...]
    """As in `Found`."""
    handovers: tuple[Handover, ...]
    """As in `Found`."""
    near: tuple[bool | None, ...]
    """Whether the cores were as near to each other in a round as in the quickest handover of all candidates; None:
    nothing tells, or they were for a part of it."""
    fraction: float
    """The network's operations per second over those of the product in the same round, the median of the rounds."""
    memory: Memory
    call_bytes: int | None
    """What a call takes beside what lies there between two of them."""
    compile_seconds: float
    difference: float | None
    """How far the first output is from the reference's, relative, as root mean squares; None: it is no number."""


@dataclass(frozen=True)
class CaseReport:
    """One case, with every candidate."""

    case: Case
    operations: int
    """Of a call."""
    reference: str | None
    """What the ratios are to: torch's fastest; without torch, JAX's plain mirror; None where nothing ran."""
    candidates: tuple[Figures, ...]
    """Those that ran."""
    failed: Mapping[str, str]
    """Why the others did not, by name."""
    drawn: bool = False
    """Whether the network draws at random here: then no two answers are the same."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        candidates = [dataclasses.asdict(one) | {"memory": one.memory._asdict()} for one in self.candidates]
        return dataclasses.asdict(self) | {"case": self.case._asdict(), "candidates": candidates}


@dataclass(frozen=True)
class Environment:
    """Where it was measured."""

    machine: dict[str, Any]
    versions: dict[str, str]
    devices: dict[str, dict[str, Any]]
    """What each framework that runs here tells of its device, and of how it is set."""

    @property
    def platform(self) -> str:
        """The "cpu", or what any framework has besides."""
        return next((one["platform"] for one in self.devices.values() if one["platform"] != "cpu"), "cpu")


def judged(case: Case, network: Description, found: Sequence[Found], failed: Mapping[str, str]) -> CaseReport:
    """The candidates of one case, beside the reference."""
    described, training = graph_of(network), case.kind == "training"
    count = operations(described, case.batch, (case.height, case.width), training=training)
    if not found:
        return CaseReport(case, count, None, (), failed)
    reference = reference_of(found)
    times = (time for one in found for pair in one.handovers for time in pair if time is not None)
    bound = APART * min(times, default=0.0)
    figures = tuple(_figures(one, reference, count, bound) for one in found)
    return CaseReport(case, count, reference.candidate.name, figures, failed, draws(described, training=training))


def reference_of(found: Sequence[Found]) -> Found:
    """The fastest of torch; where there is none, JAX's plain mirror; else the fastest."""
    torch = [one for one in found if one.candidate.framework == "torch" and one.candidate not in BY_NAME]
    plain = [one for one in found if "plain" in one.candidate.words]
    return min(torch or plain or found, key=lambda one: one.median)


def to_json(environment: Environment, options: Mapping[str, Any], cases: Sequence[CaseReport]) -> str:
    """The file."""
    fields = {"schema": SCHEMA, **dataclasses.asdict(environment), "options": options}
    return json.dumps(fields | {"cases": [case.to_dict() for case in cases]}, indent=2) + "\n"


def _figures(one: Found, reference: Found, count: int, bound: float) -> Figures:
    ratios = tuple(a / b for a, b in zip(one.seconds, reference.seconds, strict=True))
    fractions = (count / seconds / matmul for seconds, matmul in zip(one.seconds, one.matmuls, strict=True))
    _, rest, peak = one.memory
    return Figures(
        name=one.candidate.name,
        framework=one.candidate.framework,
        seconds=one.seconds,
        median=one.median,
        ratios=ratios,
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        operations_per_second=count / one.median,
        matmuls=one.matmuls,
        handovers=one.handovers,
        near=tuple(_near(pair, bound) for pair in one.handovers),
        fraction=statistics.median(fractions),
        memory=one.memory,
        call_bytes=None if rest is None or peak is None else max(peak - rest, 0),
        compile_seconds=one.compile_seconds,
        difference=_distance(one.answer, reference.answer),
    )


def _near(pair: Handover, bound: float) -> bool | None:
    sides = {None if time is None else time < bound for time in pair}
    return sides.pop() if len(sides) == 1 else None


def _distance(a: Sequence[float], b: Sequence[float]) -> float | None:
    norm = math.hypot(*b)
    found = math.dist(a, b) / norm if norm and len(a) == len(b) else math.nan
    return found if math.isfinite(found) else None
