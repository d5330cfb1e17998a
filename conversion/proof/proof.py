"""The proof that two networks are the same: both run on the same inputs, judged against float64."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from conversion.backends.backend import Precision, Runner, Tool
from conversion.proof.checks import (
    Check,
    Departure,
    Float32Errors,
    Results,
    float32_checks,
    float32_errors,
    float64_checks,
    locate,
    misshaped,
    results_of,
)
from conversion.proof.samples import Input, Sample, neighbour, repeated, samples
from unet_core.checkpoints.evidence import OURS, By, Evidence
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.progress import Progress, silent

NEIGHBOURS = 4
"""How many more inputs a float32 check in doubt is judged on, each with weights moved by one unit in the last place."""
_NO_TRAINING = "an ONNX file has no other; in training mode both agree with each other"


@dataclass(frozen=True)
class NetworkSummary:
    """One of the two networks, for the report."""

    name: str
    framework: Tool
    device: str
    versions: Mapping[str, str]
    config: Mapping[str, Any]
    flags: Mapping[str, bool | str] = field(default_factory=dict)
    """What decides how exact its products were."""


@dataclass(frozen=True)
class Proof:
    """What `verify` found.

    Examples:
        >>> import conversion, unet_torch
        >>> one, other = (unet_torch.UNet(seed=seed, features=(4, 8)) for seed in (0, 1))
        >>> proof = conversion.verify(one, conversion.to_jax(other), size=(8, 8))
        >>> print(proof.verdict)
        the networks differ: down1.c...
    """

    a: NetworkSummary
    b: NetworkSummary
    tensors: int
    """How many tensors the network has, or the training state."""
    identical: int
    """How many of them are the same in both, in every bit."""
    checks: tuple[Check, ...]
    departure: Departure | None
    subject: Literal["networks", "trainings"] = "networks"
    """What was compared: networks, or trainings."""
    inputs: tuple[Input, ...] = ()
    """What both were run on."""
    seed: int = 0
    """Of what is random among that."""
    evidence: Evidence = OURS
    """By what the networks are known to be the user's."""
    untrained: str = ""
    """Why they were compared in eval mode alone; empty where they were in training mode too."""

    @property
    def equal(self) -> bool:
        """Whether every check is within its budget."""
        return self.departure is None

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.departure is not None:
            return f"the {self.subject} differ: {self.departure}"
        return agreement(self.subject, self.checks, self.evidence, self.untrained)

    def to_json(self) -> str:
        """Everything, for machines; a number that is not finite is written as a string."""
        fields = dataclasses.asdict(self)
        for entry, check in zip(fields["checks"], self.checks, strict=True):
            entry["ok"] = check.ok
        said = {"equal": self.equal, "verdict": self.verdict, "known_by": str(self.evidence)}
        return json.dumps(finite({**said, **fields}), indent=2, allow_nan=False)


def agreement(subject: str, checks: Iterable[Check], evidence: Evidence = OURS, untrained: str = "") -> str:
    """The verdict on what is the same: of networks that nothing of the user's was run against, that they agree."""
    judged = sum(check.budget is not None for check in checks)
    said = "are the same" if evidence.proves else "agree with each other"
    why = untrained or (_NO_TRAINING if evidence.eval_alone else "")
    mode = f", in eval mode alone ({why})" if why else ""
    return f"the {subject} {said}{mode}: all {judged} checks are within their budgets"


def verify_runners(
    a: Runner,
    b: Runner,
    *,
    size: tuple[int, ...] | None = None,
    images: Sequence[str | Path] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Proof:
    """As `conversion.verify`, of two networks that are ready to run."""
    checks: list[Check] = []
    inputs: list[Input] = []
    departure = misshaped(a, b)
    by_torch = (b, a) if b.framework == "torch" != a.framework else (a, b)
    batches: tuple[Sample, ...] = ()
    if departure is None:
        config = a.config if isinstance(a.config, Graph) else b.config  # a graph may not take all sizes
        batches = samples(config, size=size, images=images, seed=seed)
    for number, sample in enumerate(batches):
        begun = number / len(batches)
        inputs.append(Input.of(sample.name, sample.x))
        progress(f"float64 on {sample.name}", begun)
        wide = _results(a, b, sample, "float64", seed)
        judges, results = (a, b), wide
        found = list(float64_checks(sample.name, *wide))
        if all(check.ok for check in found):
            progress(f"float32 on {sample.name}", begun + 0.6 / len(batches))
            judges, results = by_torch, _results(*by_torch, sample, "float32", seed)
            errors = [float32_errors(wide[0], *results)]
            narrow = list(float32_checks(sample.name, errors))
            if any(not check.ok for check in narrow) and all(check.in_doubt for check in narrow if not check.ok):
                progress(f"float32 on {sample.name} is in doubt: {NEIGHBOURS} neighbours", begun + 0.8 / len(batches))
                near = tuple(repeated(sample, NEIGHBOURS, seed=seed))
                inputs += [Input.of(one.name, one.x) for one in near]
                moved = results_of(_moved(by_torch[0], NEIGHBOURS), sample, "float64", seed=seed)
                errors = [float32_errors(wide[0], *results, moved), *_neighbouring_errors(*by_torch, near, seed)]
                narrow = list(float32_checks(f"{sample.name} +{NEIGHBOURS}", errors))
            found += narrow
        checks += found
        failed = next((check for check in found if not check.ok), None)
        if failed is not None:
            progress("looking for the first layer that departs", (number + 1) / len(batches))
            departure = locate(*judges, sample, failed, results, wide[0])
            break
    return Proof(
        side_of(a),
        side_of(b),
        len(a.tensors),
        identical(a, b),
        tuple(checks),
        departure,
        inputs=tuple(inputs),
        seed=seed,
        evidence=min(a.evidence, b.evidence, key=lambda one: (get_args(By).index(one.by), not one.eval_alone)),
        untrained=a.config.untrained if isinstance(a.config, Graph) else "",
    )


def _results(a: Runner, b: Runner, sample: Sample, precision: Precision, seed: int) -> tuple[Results, Results]:
    return results_of(a, sample, precision, seed=seed), results_of(b, sample, precision, seed=seed)


def _neighbouring_errors(a: Runner, b: Runner, near: Iterable[Sample], seed: int) -> Iterator[Float32Errors]:
    """The float32 errors on such inputs, of networks whose weights are moved by one unit in the last place.

    A rounding error is a matter of the last bits of inputs and weights; so is the ratio of two of them. Over neighbours
    it averages out, while a real loss of precision stays. How far the weights' last place moves the results is measured
    along with it.
    """
    for number, again in enumerate(near):
        first, second = (_moved(runner, number) for runner in (a, b))
        reference, moved = (results_of(one, again, "float64", seed=seed) for one in (first, a))
        yield float32_errors(reference, *_results(first, second, again, "float32", seed), moved)


def _moved(runner: Runner, number: int) -> Runner:
    """One of its neighbours."""
    return runner.with_tensors(neighbour(runner.tensors, number))


def side_of(runner: Runner) -> NetworkSummary:
    """One of the two, for the report."""
    config, flags = described(runner.config), dict(runner.flags)
    return NetworkSummary(runner.name, runner.framework, runner.device, dict(runner.versions), config, flags)


def described(config: Description) -> dict[str, Any]:
    """What a report says of a network: all of a config; of a graph, what it is and the sha256 of its JSON."""
    if isinstance(config, Graph):
        text = json.dumps(config.to_dict(), sort_keys=True)
        return {"network": config.title, "graph": hashlib.sha256(text.encode()).hexdigest()}
    return config.to_dict()


def identical(a: Runner, b: Runner) -> int:
    """How many tensors are the same in both, in every bit."""
    return sum(_bitwise_equal(value, b.tensors.get(key)) for key, value in a.tensors.items())


def _bitwise_equal(a: np.ndarray, b: np.ndarray | None) -> bool:
    return b is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def finite(value: Any) -> Any:
    """The same JSON values; a number that is not finite is a string."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
