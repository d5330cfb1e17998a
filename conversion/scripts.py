"""Training files of PyTorch scripts, carried over to JAX and back with the state of their optimiser."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path

from conversion.backends.backend import Framework
from conversion.backends.frameworks import importing
from conversion.backends.pairs import paired
from conversion.code import Live
from conversion.containers import Opened, opened
from conversion.formats import replaces_of
from conversion.proof.proof import Proof, verify_runners
from conversion.result import Conversion
from conversion.writing import Content, Job, Options, convert_by, unchanged
from unet_core.checkpoints.checkpoint import Reading
from unet_core.checkpoints.containers import Container, container_of, existing_container
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import CheckpointError
from unet_core.progress import Progress
from unet_core.staging import locally
from unet_core.training.script_file import TrainingFile, refuse

_OWNERS: dict[Framework, Container] = {"torch": Container.TORCH, "jax": Container.ORBAX}


def understood_training(path: Path, hints: Hints = NO_HINTS) -> tuple[TrainingFile, dict[str, str]]:
    """The training in a `.pt` or `.pth` file of a script, or in the Orbax directory that it was converted to.

    Returns:
        It, and, by name, what in the file cannot be carried.

    Raises:
        CheckpointError: there is none, or it is damaged.
        MissingFrameworkError: the framework of its kind is not installed.
    """
    training, left, _ = _opened(path, hints)
    return training, left


@locally
def _opened(path: Path, hints: Hints) -> tuple[TrainingFile, dict[str, str], Live | None]:
    """As `understood_training`; and the network's own code, where that was named."""
    container = existing_container(path)
    if container is Container.TORCH:
        found = opened(path, hints)
        with importing():
            from unet_torch.training.script_file import understood
        return *understood(path, found.checkpoint), found.live
    if container is Container.ORBAX:
        with importing():
            from unet_jax.training.script_file import read
        return read(path), {}, None
    raise CheckpointError(f"{path}: a {container.value} holds a network alone, no training; leave --to out")


def _back(path: Path, written: TrainingFile) -> TrainingFile:
    """What was written, read again; a script's file does not tell its network, which is the one that was written."""
    if existing_container(path) is Container.ORBAX:
        return _opened(path, NO_HINTS)[0]
    with importing():
        from unet_torch.checkpoint import contents
        from unet_torch.training.script_file import understood
    script, network = written.script, written.state.network
    names = dict(reversed(script.names))  # of each tensor the first
    found = contents(path).fetch(script.network, list(names.values()))
    tensors = {key: found[names[key]] if key in names else value for key, value in network.tensors.items()}
    again = dataclasses.replace(network, tensors=tensors, reading=Reading(key=script.network, keys=names))
    return understood(path, again)[0]


def convert_training(
    src: Path, dst: Path, to: Framework, hints: Hints, drop: Collection[str], options: Options
) -> Conversion:
    """Write the training in the file `src`, for the framework `to`; see `conversion.convert`."""
    kind = existing_container(src)
    if container_of(dst) is not _OWNERS[to] or kind is _OWNERS[to]:
        kinds = "a .pt file to a name without a suffix" if to == "jax" else "a directory to a .pt file"
        raise CheckpointError(f"{src} to {dst}: --to {to} takes {kinds}")
    for framework in _OWNERS:  # one reads, the other writes
        _writer(framework)

    def read() -> Job:
        with unchanged(src, options.certificate) as sha256:
            training, left, live = _opened(src, hints)
            refuse(left, drop, str(src))
        network = training.state.network

        def read_back(partial: Path) -> Content:
            state = _back(partial, training).state
            return Content(state.network, _OWNERS[to].value, state)

        def prove(back: Content, progress: Progress) -> Proof:
            ends = Opened(network, live, kind), Opened(back.checkpoint, container=_OWNERS[to])
            return verify_runners(*paired(*ends, (str(src), str(dst))), progress=progress)

        source = Content(network, kind.value, training.state, sha256)
        return Job(source, lambda partial: _writer(to)(partial, training), read_back, prove)

    return dataclasses.replace(convert_by(read, src, dst, replaces_of(_OWNERS[to]), options), left=tuple(drop))


def _writer(framework: Framework) -> Callable[[Path, TrainingFile], None]:
    with importing():
        if framework == "torch":
            from unet_torch.training.script_file import write as write_file

            return write_file
        from unet_jax.training.script_file import write

        return write
