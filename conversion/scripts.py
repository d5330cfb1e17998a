"""Training files of PyTorch scripts, carried over to JAX and back with the state of their optimiser."""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conversion.certificate import certificate_path, certify, party, unchanged, write_certificate
from conversion.frameworks import needed
from conversion.outcome import Conversion, DifferentError
from conversion.proof import verify_runners
from conversion.runners import Framework, runner_of_checkpoint
from unet_core.containers import Container, container_of, existing_container
from unet_core.errors import CheckpointError
from unet_core.files import atomic, check_target
from unet_core.progress import Progress, silent
from unet_core.reading import NO_HINTS, Hints
from unet_core.training_file import TrainingFile, refuse
from unet_core.training_state import difference

_OWNERS: dict[Framework, Container] = {"torch": Container.TORCH, "jax": Container.ORBAX}


def understood_training(path: Path, hints: Hints = NO_HINTS) -> tuple[TrainingFile, dict[str, str]]:
    """The training in a `.pt` or `.pth` file of a script, or in the Orbax directory that it was converted to.

    Returns:
        It, and, by name, what in the file cannot be carried.

    Raises:
        CheckpointError: there is none, or it is damaged.
        MissingFrameworkError: the framework of its kind is not installed.
    """
    container = existing_container(path)
    if container is Container.TORCH:
        of_script: tuple[TrainingFile, dict[str, str]] = needed("unet_torch.training_file").understood(path, hints)
        return of_script
    if container is Container.ORBAX:
        return needed("unet_jax.training_file").read(path), {}
    raise CheckpointError(f"{path}: a .safetensors file holds a network alone, no training; leave --to out")


def read_training(path: Path, hints: Hints = NO_HINTS, drop: Collection[str] = ()) -> TrainingFile:
    """As `understood_training`, but refuses what cannot be carried and is not in `drop`."""
    training, left = understood_training(path, hints)
    refuse(left, drop, str(path))
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
    modules: dict[Framework, Any] = {name: needed(f"unet_{name}.training_file") for name in _OWNERS}
    place: dict[str, Any] = {"force": force, "companion": certificate_path(dst)}
    place["replaces"] = needed("unet_jax.checkpoint").is_orbax if to == "jax" else None
    check_target(dst, **place)
    progress(f"reading {src.name}", 0.0)
    with unchanged(src, certificate) as sha256:
        training = read_training(src, hints, drop)
    with atomic(dst, **place) as partial:
        progress(f"writing {dst.name}", 0.05)
        modules[to].write(partial, training)
        progress(f"reading {dst.name} back", 0.1)
        back, _ = understood_training(partial, hints)
        changed = difference(training.state, back.state)
        if changed:  # a bug of ours, or a disk that does not keep what is written
            raise CheckpointError(f"{dst}: not written: {len(changed)} arrays came back otherwise, {changed[0]} first")
        proof = issued = None
        if verify:
            other: Framework = "torch" if to == "jax" else "jax"
            proof = verify_runners(
                runner_of_checkpoint(training.state.network, other, str(src)),
                runner_of_checkpoint(back.state.network, to, str(dst)),
                progress=lambda text, done: progress(text, 0.15 + 0.85 * done),
            )
            if not proof.equal:
                raise DifferentError(f"{dst}: not written: {proof.verdict}", proof)
            if certificate:
                source = party(
                    src, proof.a, training.state.network, kind=kind.value, sha256=sha256, state=training.state
                )
                destination = party(
                    dst, proof.b, back.state.network, kind=_OWNERS[to].value, sha256=None, state=back.state
                )
                issued = certify(proof, source, destination, when=datetime.now(UTC))
                issued = write_certificate(issued, partial, partial)
    return Conversion(src, dst, training.state.network, proof, training.state, tuple(drop), issued)
