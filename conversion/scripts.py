"""Training files of PyTorch scripts, carried over to JAX and back with the state of their optimiser."""

import dataclasses
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conversion.backends.backend import Framework
from conversion.backends.frameworks import needed
from conversion.backends.pairs import paired
from conversion.code import Live
from conversion.containers import Opened, module_of, opened
from conversion.proof.certificate import certificate_path, certify, party, unchanged, write_certificate
from conversion.proof.proof import verify_runners
from conversion.result import Conversion, DifferentError
from unet_core.checkpoints.checkpoint import Reading
from unet_core.checkpoints.containers import Container, container_of, existing_container
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import CheckpointError
from unet_core.files import atomic, check_target
from unet_core.progress import Progress, silent
from unet_core.training.script_file import TrainingFile, refuse
from unet_core.training.state import difference

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


def _opened(path: Path, hints: Hints) -> tuple[TrainingFile, dict[str, str], Live | None]:
    """As `understood_training`; and the network's own code, where that was named."""
    container = existing_container(path)
    if container is Container.TORCH:
        found = opened(path, hints)
        return *needed("unet_torch.training.script_file").understood(path, found.checkpoint), found.live
    if container is Container.ORBAX:
        return needed("unet_jax.training.script_file").read(path), {}, None
    raise CheckpointError(f"{path}: a .safetensors file holds a network alone, no training; leave --to out")


def _back(path: Path, written: TrainingFile) -> TrainingFile:
    """What was written, read again; a script's file does not tell its network, which is the one that was written."""
    if existing_container(path) is Container.ORBAX:
        training: TrainingFile = needed("unet_jax.training.script_file").read(path)
        return training
    script, network = written.script, written.state.network
    names = dict(reversed(script.names))  # of each tensor the first
    found = module_of(Container.TORCH).contents(path).fetch(script.network, list(names.values()))
    tensors = {key: found[names[key]] if key in names else value for key, value in network.tensors.items()}
    again = dataclasses.replace(network, tensors=tensors, reading=Reading(key=script.network, keys=names))
    training, _ = needed("unet_torch.training.script_file").understood(path, again)
    return training


def convert_training(
    src: Path,
    dst: Path,
    *,
    to: Framework,
    hints: Hints = NO_HINTS,
    drop: Collection[str] = (),
    force: bool = False,
    verify: bool = True,
    certificate: bool = False,
    progress: Progress = silent,
) -> Conversion:
    """Write the training in the file `src`, for the framework `to`; see `conversion.convert`."""
    kind = existing_container(src)
    if container_of(dst) is not _OWNERS[to] or kind is _OWNERS[to]:
        kinds = "a .pt file to a name without a suffix" if to == "jax" else "a directory to a .pt file"
        raise CheckpointError(f"{src} to {dst}: --to {to} takes {kinds}")
    modules: dict[Framework, Any] = {name: needed(f"unet_{name}.training.script_file") for name in _OWNERS}
    place: dict[str, Any] = {"force": force, "companion": certificate_path(dst)}
    place["replaces"] = needed("unet_jax.checkpoint").is_orbax if to == "jax" else None
    check_target(dst, **place)
    progress(f"reading {src.name}", 0.0)
    with unchanged(src, certificate) as sha256:
        training, left, live = _opened(src, hints)
        refuse(left, drop, str(src))
    network = training.state.network
    certificate = certificate and network.evidence.by != "nothing"
    with atomic(dst, **place) as partial:
        progress(f"writing {dst.name}", 0.05)
        modules[to].write(partial, training)
        progress(f"reading {dst.name} back", 0.1)
        back = _back(partial, training)
        changed = difference(training.state, back.state)
        if changed:  # a bug of ours, or a disk that does not keep what is written
            raise CheckpointError(f"{dst}: not written: {len(changed)} arrays came back otherwise, {changed[0]} first")
        proof = issued = None
        if verify:
            ends = Opened(network, live, kind), Opened(back.state.network, container=_OWNERS[to])
            proof = verify_runners(
                *paired(*ends, (str(src), str(dst))),
                progress=lambda text, done: progress(text, 0.15 + 0.85 * done),
            )
            if not proof.equal:
                raise DifferentError(f"{dst}: not written: {proof.verdict}", proof)
            if certificate:
                source = party(src, proof.a, network, kind=kind.value, sha256=sha256, state=training.state)
                destination = party(
                    dst, proof.b, back.state.network, kind=_OWNERS[to].value, sha256=None, state=back.state
                )
                issued = certify(proof, source, destination, when=datetime.now(UTC))
                issued = write_certificate(issued, partial, partial)
    return Conversion(src, dst, network, proof, training.state, tuple(drop), issued)
