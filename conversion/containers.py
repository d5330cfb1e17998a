"""Files of any kind, opened as the networks that they hold; each kind's module is imported when it is first needed."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conversion.backends.backend import Framework, framework_of_kind, runner_in_either, runner_of_code
from conversion.backends.frameworks import importing
from conversion.code import Known, Live, build, known_of
from conversion.formats import module_of, replaces_of
from conversion.loading import contents_of, load, under_its_names
from conversion.modules import read_module
from conversion.proof.certificate import SOURCE
from conversion.proof.example import Example, held, read_example, settled
from conversion.proof.samples import usual_sizes
from conversion.sources import NamedCode, named_code
from unet_core.checkpoints import readers
from unet_core.checkpoints.checkpoint import Checkpoint, Origin, Reading
from unet_core.checkpoints.containers import Container, existing_container
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.onnx_file import model_at
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.checkpoints.soundness import trusted
from unet_core.errors import CheckpointError, shown, some
from unet_core.graph.canonical import check_tensors, in_forward_order
from unet_core.staging import locally


@dataclass(frozen=True)
class Opened:
    """A network in a file."""

    checkpoint: Checkpoint
    live: Live | None = None
    """Its own code with these tensors, where that is known."""
    container: Container | None = None
    """None: a source that names its own code (`conversion.sources`)."""

    @property
    def kind(self) -> str:
        """What a person calls it."""
        return SOURCE if self.container is None else self.container.value

    @property
    def framework(self) -> Framework | None:
        """In which it runs; None: in either."""
        return "torch" if self.live is not None or self.container is None else framework_of_kind(self.container)


def read(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Read and check a checkpoint of any kind; raises what `opened` raises."""
    return opened(path, hints).checkpoint


def opened(path: Path, hints: Hints = NO_HINTS) -> Opened:
    """As `examined`, and nothing in it is left to guess.

    Raises:
        UNetError: or its values are none of a network, or nothing tells what it computes.
    """
    found = examined(path, hints)
    checkpoint = trusted(found.checkpoint, str(path))
    unchecked = isinstance(hints, Known) and hints.unchecked
    if checkpoint.evidence.by == "nothing" and not (checkpoint.config_stored or unchecked):
        code = checkpoint.reading.code
        raise CheckpointError(
            f"{path}: only the shapes of its tensors tell what it computes: name its code (--module FILE.py:Class"
            f"{f', whose class is {shown(code)}' if code else ''}) or what that answered (--example FILE.npz); or say "
            "--unchecked"
        )
    return found


@locally
def examined(path: Path, hints: Hints = NO_HINTS) -> Opened:
    """Read a network of any kind: by its own code where that is named, or else by the names of its tensors.

    Args:
        path: the file or directory; or a source that names its own code (`conversion.sources`).
        hints: what it does not tell; may be a `Known`.

    Raises:
        UNetError: it is missing, damaged or of another network; its code fails, or is not of these tensors; or it
            answers otherwise than was recorded. One line says which.
        MissingFrameworkError: the kind, or the code, needs a framework that is not installed.
    """
    known = known_of(hints)
    example = None if known.example is None else read_example(known.example)
    named = named_code(path, trust=known.trust, nnunet_fold=known.nnunet_fold) if known.module is None else None
    if named is not None:
        return _of_source(named, known, example)
    container = existing_container(path)
    if known.module is not None and not (known.where_needed and tells(path)):
        return _by_code(path, container, known, example)
    model = model_at(path) if container is Container.ONNX else None
    if model is not None and model.graph.node:
        return _of_onnx(path, model, known, example)
    checkpoint = _examined(path, container, known)
    if example is not None and not (known.where_needed and checkpoint.config_stored):
        checkpoint = settled(checkpoint, example, str(path), known)
    return Opened(checkpoint, None, container)


@locally
def tells(path: Path) -> bool:
    """Whether a file tells its network itself, by a record of ours."""
    container = existing_container(path)
    return _is_own_directory(path, container) or (
        container is not Container.ORBAX and readers.contents(path, container).record is not None
    )


def _is_own_directory(path: Path, container: Container) -> bool:
    """Whether it is an Orbax directory as this project writes it."""
    replaces = replaces_of(container) if container is Container.ORBAX else None
    return replaces is not None and replaces(path)


@locally
def contents_at(path: Path) -> Contents:
    """What a file or directory of any kind holds, before anything in it is judged.

    Raises:
        UNetError: it is missing, or damaged.
        MissingFrameworkError: what reads it is not installed.
    """
    return _contents(path, existing_container(path))


def _contents(path: Path, container: Container) -> Contents:
    if container is not Container.ORBAX:
        return readers.contents(path, container)
    with importing():
        from unet_jax import foreign
    return foreign.contents(path)


def _examined(path: Path, container: Container, hints: Hints) -> Checkpoint:
    if container is Container.ORBAX:
        return module_of(container).examine(path, hints)
    return readers.examine(path, container, hints)


def _by_code(path: Path, container: Container, known: Known, example: Example | None) -> Opened:
    source, title = str(path), known.title
    _refuse_semantics(known, f"--module {title}")
    live = Live(build(known), known.out)
    stored: Checkpoint | None = None
    if _is_own_directory(path, container) or (contents := _contents(path, container)).record is not None:
        if known.names is not None:
            raise CheckpointError(f"{path}: tells the names of its tensors itself; leave --names out")
        stored = _examined(path, container, Hints(key=known.key))
        contents = contents_of(stored, source, live.module)
    else:
        contents = under_its_names(contents, live.module, title, known.names)
    loaded = load(live.module, contents, title, known.key)
    found = read_module(live.module, title, sizes=known.sizes, out=known.out)
    check_tensors(loaded.tensors, found.config, source)
    assumed = found.reading.assumed
    checkpoint = dataclasses.replace(
        found,
        tensors=in_forward_order(loaded.tensors, found.config),
        origin=Origin(counters=loaded.counters),
        config_stored=False,
        digests_stored=stored is not None and stored.digests_stored,
        reading=dataclasses.replace(loaded.reading, sure="certain: read from its code", assumed=assumed),
    )
    if isinstance(known.module, str):
        _check_whole(checkpoint, contents, live, known)
    return Opened(_held(checkpoint, live, example, title), live, container)


def _check_whole(checkpoint: Checkpoint, contents: Contents, live: Live, known: Known) -> None:
    """Raise where the file is not all of the network: its code draws something else whenever it is built."""
    again = Live(build(known), known.out)
    load(again.module, contents, known.title, known.key)
    size = usual_sizes(checkpoint.config)[0]
    x = np.random.default_rng(0).standard_normal((1, *size, checkpoint.config.in_channels), np.float32)
    one, other = (runner_of_code(built, checkpoint, known.title).predict(x, "float64") for built in (live, again))
    if not np.allclose(one, other, rtol=0, atol=1e-9 * np.abs(one).max(), equal_nan=True):
        raise CheckpointError(
            f"{contents.source}: with these tensors {known.title} answers something else whenever it is built: it "
            "draws numbers that its state_dict does not have; convert the module in memory, in Python"
        )


def _of_source(named: NamedCode, known: Known, example: Example | None) -> Opened:
    _refuse_semantics(known, named.name)
    live = Live(named.module, known.out)
    found = read_module(
        named.module, named.source, size=named.size, channels=named.in_channels, sizes=known.sizes, out=known.out
    )
    assumed = (*found.reading.assumed, *named.notes)
    reading = Reading(sure="certain: read from the code that it names", assumed=assumed)
    checkpoint = dataclasses.replace(found, config_stored=False, digests_stored=False, reading=reading)
    return Opened(_held(checkpoint, live, example, named.source), live)


def _of_onnx(path: Path, model: Any, known: Known, example: Example | None) -> Opened:
    """By its own graph."""
    _refuse_semantics(known, path.name)
    with importing():
        from conversion.sources.onnx_graph.reading import read as read_onnx
    checkpoint = read_onnx(path, model, sizes=known.sizes, out=known.out)
    if example is not None:
        checkpoint = _noted(checkpoint, example, held(example, runner_in_either(checkpoint, str(path)), str(path)))
    return Opened(checkpoint, None, Container.ONNX)


def _refuse_semantics(known: Known, code: str) -> None:
    given = [*known.semantics, *(["dialect"] if known.dialect else [])]
    if given:
        raise CheckpointError(f"{code}: the code tells {some(given)}; leave that out")


def _held(checkpoint: Checkpoint, live: Live, example: Example | None, title: str) -> Checkpoint:
    """The same checkpoint, its code held against what it answered when that was recorded."""
    if example is None:
        return checkpoint
    return _noted(checkpoint, example, held(example, runner_of_code(live, checkpoint, title), title))


def _noted(checkpoint: Checkpoint, example: Example, found: str) -> Checkpoint:
    """The same, with what was found of an example."""
    detail = f"{checkpoint.evidence.detail}; {example.name}: {found}"
    return dataclasses.replace(checkpoint, evidence=dataclasses.replace(checkpoint.evidence, detail=detail))
