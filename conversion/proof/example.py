"""What a network's own code returned for an input, as a person recorded it: the network is held against that."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from zipfile import BadZipFile

import numpy as np

from conversion.backends.backend import Precision, Runner, runner_of_checkpoint
from conversion.code import Known
from conversion.proof.differences import UNITS, distance, largest_difference
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.dialects import dialect_of
from unet_core.checkpoints.evidence import Evidence
from unet_core.checkpoints.reading import SEMANTICS
from unet_core.config import Fit, Output, UNetConfig
from unet_core.errors import CheckpointError, MissingFrameworkError, first_line, sized, some
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.staging import locally

_FACTOR = 32.0
"""How many times our own float32 error, against float64, the recorded output's may be: as of a layer's in a report."""
_EPSILONS = (1e-5, 1e-3, 1e-6, 1e-4, 1e-7, 1e-8, 1e-2)
"""Of BatchNorm, as projects have them; torch's own first."""
_LARGEST = 2**28
"""Numbers in an array."""
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Example:
    """An input and its output, channels last."""

    name: str
    x: np.ndarray
    y: np.ndarray

    @property
    def precision(self) -> Precision:
        """In which the output was recorded."""
        return "float64" if self.y.dtype == np.float64 else "float32"


@dataclass(frozen=True)
class _Judged:
    """How far the recorded output is from a network's."""

    error: float
    """Relative to the output's norm, or to its largest value: whichever is further over, or nearer to, its budget."""
    budget: float
    """What rounding makes of it, at most."""

    @property
    def ok(self) -> bool:
        """Whether it is the network's."""
        return bool(self.error <= self.budget)

    def __str__(self) -> str:
        """Of one that is not."""
        return (
            f"{self.error:.1e} off, where rounding explains {self.budget:.1e} (recorded on a GPU, or in a lower "
            "precision? record it on the CPU, in float32)"
        )

    def detail(self, example: Example) -> str:
        """Of one that is."""
        return f"{'x'.join(map(str, example.x.shape[1:-1]))}, {self.error:.1e} off"


@locally
def read_example(path: Path) -> Example:
    """The arrays `input` and `output` of an .npz, NCHW or NCDHW.

    Raises:
        CheckpointError: there is no such file, or they are not sound; in one line.
    """
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise CheckpointError(f"{path}: is one array, no .npz of input and output")
            lacking = [name for name in ("input", "output") if name not in found]
            if lacking:
                raise CheckpointError(f"{path}: has no array {some(lacking)}; it has: {some(found) or 'none'}")
            if found.zip is None or max(member.file_size for member in found.zip.infolist()) > 8 * _LARGEST:
                raise CheckpointError(f"{path}: has arrays of more than {_LARGEST} numbers")
            x, y = found["input"], found["output"]
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or 'is no .npz').lower()}") from error
    except (ValueError, EOFError, BadZipFile, KeyError, MemoryError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: is no sound .npz of plain arrays: {first_line(error)}") from error
    for name, array in (("input", x), ("output", y)):
        where = f"{path}: its {name}, {array.dtype} of {_shape(array)},"
        if array.dtype not in _DTYPES:
            raise CheckpointError(f"{where} is not float32 or float64: record the network in one of these")
        if array.ndim not in (4, 5) or not 0 < array.size <= _LARGEST:
            raise CheckpointError(f"{where} is not NCHW (NCDHW)")
        if not np.isfinite(array).all():
            raise CheckpointError(f"{where} has values that are not finite")
    if x.ndim != y.ndim or len(x) != len(y):
        raise CheckpointError(f"{path}: an input of {_shape(x)} and an output of {_shape(y)} are not of one network")
    return Example(path.name, np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1))


def held(example: Example, runner: Runner, source: str) -> str:
    """What was found where a network's output is the recorded one, in a few words.

    Raises:
        CheckpointError: it does not.
    """
    _check_fit(example, runner.config, source)
    whole = runner.as_called()
    found = _judged(example, *(whole.predict(example.x, precision) for precision in get_args(Precision)))
    if not found.ok:
        raise CheckpointError(f"{source}: answers otherwise than {example.name} says: {found}")
    return found.detail(example)


def settled(checkpoint: Checkpoint, example: Example, source: str, known: Known) -> Checkpoint:
    """The network of a file whose output is the recorded one; what its names and shapes do not tell is tried out.

    Args:
        checkpoint: as they tell it.
        example: what its code returned.
        source: the file, for messages.
        known: what a person says; that is not tried otherwise.

    Raises:
        CheckpointError: no network of the family with these tensors has that output; or several have.
    """
    config, reading = checkpoint.config, checkpoint.reading
    _check_fit(example, config, source)
    if not isinstance(config, UNetConfig):
        detail = held(example, _runner(checkpoint, config, source), source)
        return dataclasses.replace(checkpoint, evidence=Evidence("example", example.name, detail))
    right, tried = _tried(checkpoint, config, example, source, known)
    if not right:
        nearest = min(tried, key=lambda trial: trial.judged.error)
        raise CheckpointError(
            f"{source}: of {len(tried)} networks of this family with its tensors, none answers what {example.name} "
            f"says; the nearest, {_said(nearest.config)}, is {nearest.judged}; name its code, --module FILE.py:Class"
        )
    taken = min(right, key=lambda trial: (_changes(config, trial.config), trial.judged.error))
    left = {name for name in reading.unknown for one in right if _value(one.config, name) != _value(taken.config, name)}
    if left:
        raise CheckpointError(
            f"{source}: {example.name} does not tell {some(sorted(left))}: record the answer to random numbers"
        )
    dialect = dialect_of(checkpoint.origin.dialect)
    rule = dialect.rule if dialect else {}
    reading = dataclasses.replace(
        reading,
        sure=f"certain: its output is that of {example.name}",
        unknown=(),
        assumed=tuple(one for one in reading.assumed if one.startswith("norm_momentum") or one.endswith(" sizes)")),
        overruled=tuple(
            f"{name} {value}, where {dialect.project} has {rule[name]}"
            for name in SEMANTICS
            if dialect and (value := getattr(taken.config, name)) != rule.get(name, value)
        ),
    )
    evidence = Evidence("example", example.name, taken.judged.detail(example))
    return dataclasses.replace(checkpoint, config=taken.config, reading=reading, evidence=evidence)


@dataclass(frozen=True)
class _Trial:
    config: UNetConfig
    judged: _Judged


def _tried(
    checkpoint: Checkpoint, config: UNetConfig, example: Example, source: str, known: Known
) -> tuple[list[_Trial], list[_Trial]]:
    """The readings of the tensors with the recorded output, and all that were tried; the likely ones come first."""
    tried: list[_Trial] = []
    for epsilon in (config.norm_epsilon, *(one for one in _EPSILONS if one != config.norm_epsilon)):
        if known.norm_epsilon not in (None, epsilon):
            continue
        for variant in _variants(config, example, known):
            tried += _trials(checkpoint, dataclasses.replace(variant, norm_epsilon=epsilon), example, source, known)
        right = [trial for trial in tried if trial.judged.ok]
        if right:
            return right, tried
    return [], tried


def _variants(config: UNetConfig, example: Example, known: Known) -> Iterator[UNetConfig]:
    """Every meaning that the same tensors may have, for an input of this size; the outputs are tried elsewhere."""
    odd = any(length % config.minimum_size for length in example.x.shape[1:3])
    choices: dict[str, tuple[Any, ...]] = {"skip_first": (True, False)}
    choices |= {"align_corners": (True, False)} if odd or config.upsampling == "bilinear" else {}
    choices |= {"fit": get_args(Fit)} if odd else {}
    said = known.semantics
    names = {name: (said[name],) if name in said else values for name, values in choices.items()}
    for values in itertools.product(*names.values()):
        yield dataclasses.replace(config, **dict(zip(names, values, strict=True)))


def _trials(
    checkpoint: Checkpoint, config: UNetConfig, example: Example, source: str, known: Known
) -> Iterator[_Trial]:
    """One meaning, with every output function."""
    runner = _runner(checkpoint, config, source)
    exact, own = (runner.predict(example.x, precision) for precision in get_args(Precision))
    for output, function in _OUTPUTS.items():
        if known.output in (None, output):
            found = _judged(example, function(exact), function(own))
            yield _Trial(dataclasses.replace(config, output=output), found)


_OUTPUTS: Mapping[Output, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softmax": lambda x: (powers := np.exp(x - x.max(-1, keepdims=True))) / powers.sum(-1, keepdims=True),
    "logits": lambda x: x,
}


def _runner(checkpoint: Checkpoint, config: Description, source: str) -> Runner:
    """In PyTorch, or in JAX where that is not installed."""
    network = dataclasses.replace(checkpoint, config=config)
    try:
        return runner_of_checkpoint(network, "torch", source)
    except MissingFrameworkError:
        return runner_of_checkpoint(network, "jax", source)


def _judged(example: Example, exact: np.ndarray, own: np.ndarray) -> _Judged:
    """Hold the recorded output, and our own in float32, against our output in float64."""
    if exact.shape != example.y.shape:
        return _Judged(np.inf, 0.0)
    unit = UNITS[example.precision]
    found = [
        _Judged(measure(example.y, exact), _FACTOR * max(measure(own, exact) * unit / UNITS["float32"], unit))
        for measure in (largest_difference, distance)
    ]
    return max(found, key=lambda one: one.error / one.budget)


def _check_fit(example: Example, config: Description, source: str) -> None:
    """Raise CheckpointError where the example is none of this network's."""
    _, *size, channels = example.x.shape
    dimensions = config.dimensions if isinstance(config, Graph) else 2
    if len(size) != dimensions:
        raise CheckpointError(f"{source}: takes {dimensions} dimensions, and {example.name} has {len(size)}")
    try:
        config.check_input(*size, channels)
    except ValueError as error:
        raise CheckpointError(f"{source}: the input of {example.name} is not for this network: {error}") from error
    if example.y.shape[-1] != config.out_channels:
        raise CheckpointError(
            f"{source}: answers {config.out_channels} channels, but in {example.name} are {example.y.shape[-1]}"
        )


def _changes(config: UNetConfig, other: UNetConfig) -> int:
    return sum(getattr(config, name) != getattr(other, name) for name in SEMANTICS)


def _value(config: UNetConfig, name: str) -> Any:
    return getattr(config, name, None)


def _said(config: UNetConfig) -> str:
    names = [name for name in SEMANTICS if name != "norm_momentum"]
    return ", ".join(f"{name} {getattr(config, name)}" for name in names)


def _shape(array: np.ndarray) -> str:
    return sized(array.shape) or "a number"
