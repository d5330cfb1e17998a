"""A network with its certificate and a model card, to the Hugging Face Hub."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from conversion.code import Known, Told, known_of
from conversion.inference import opened_with_classes
from conversion.proof.certificate import EXPORTED, Certificate, certificate_path, read_certificate
from conversion.proof.confirmation import state_of
from conversion.writing import embed_certificate, write_certificate
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.containers import Container, existing_container
from unet_core.checkpoints.evidence import Evidence
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.checkpoints.safetensors_file import stored_certificate
from unet_core.errors import CheckpointError
from unet_core.files import atomic
from unet_core.hub import pushing
from unet_core.hub.card import Certified, card
from unet_core.hub.licenses import License
from unet_core.hub.store import WEIGHTS
from unet_core.paths import as_source, as_target, present
from unet_core.staging import at_hand
from unet_core.training.run import BEST, is_run


@dataclass(frozen=True)
class Push:
    """What `push` did."""

    src: Path
    repo: str
    evidence: Evidence
    certificate: Certificate | None
    """None: `src` has none."""
    pushed: pushing.Pushed | None
    """None: it was only written into a folder."""


def push(
    src: str | Path,
    repo: str,
    *,
    license: str,  # noqa: A002
    license_name: str | None = None,
    private: bool = False,
    message: str | None = None,
    dry_run: str | Path | None = None,
    hints: Hints = NO_HINTS,
    **told: Unpack[Told],
) -> Push:
    """Push a network to a repository of the Hub: weights, config or graph, certificate and model card, in one commit.

    Args:
        src: any checkpoint that `inspect` reads, or the folder of a run (its best network).
        repo: owner/name; it is made where it is not there.
        license: of the weights, as the Hub names it.
        license_name: of one that the Hub has no name for, where `license` is "other".
        private: nobody else may see it.
        message: of the commit.
        dry_run: a new folder to write the same files to instead; nothing is sent.
        hints, told: what `src` does not tell.

    Raises:
        CheckpointError: `src` cannot be read, or its certificate is not one of its bytes; nothing was sent.
        StorageError: the Hub refuses; nothing was changed there.
        MissingFrameworkError: huggingface_hub is not installed.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> conversion.push("model.pt", "owner/name", license="mit", dry_run="look").repo
        'owner/name'
    """
    path, repo, known = as_source(src), pushing.repository(repo), known_of(hints, **told)
    licensed = License(license, license_name)
    with at_hand(path), _target(dry_run) as folder:
        checkpoint = opened_with_classes(path, known)[0].checkpoint
        certificate = _certificate_of(_file_of(path), known)
        text = card(repo, checkpoint, license=licensed, certified=_certified(certificate))
        pushing.write(folder, checkpoint, dialect=checkpoint.dialect, card=text)
        if certificate is not None:
            _certify(folder / WEIGHTS, checkpoint, certificate)
        done = None if dry_run is not None else pushing.push(folder, repo, private=private, message=message)
    return Push(path, repo, checkpoint.evidence, certificate, done)


@contextmanager
def _target(dry_run: str | Path | None) -> Iterator[Path]:
    """A name for the folder of the files."""
    if dry_run is not None:
        look = as_target(dry_run)
        if present(look):
            raise CheckpointError(f"{look}: exists already; give a new folder")
        with atomic(look) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory(prefix="unet-twins-") as folder:
        yield Path(folder) / "model"


def _file_of(path: Path) -> Path:
    """The file or directory that a certificate of `path` speaks of."""
    return path / BEST if is_run(path) else path / WEIGHTS if (path / WEIGHTS).is_file() else path


def _certificate_of(file: Path, known: Known) -> Certificate | None:
    """The certificate beside a file, or in it, held against its bytes; None: there is none of a network.

    Raises:
        CheckpointError: it is of other bytes.
    """
    place = certificate_path(file)
    if not present(place):
        place = file
        with at_hand(file) as local:
            inside = not local.is_dir() and existing_container(local) is Container.SAFETENSORS
            if not inside or stored_certificate(local) is None:
                return None
    certificate = read_certificate(place)
    if certificate.subject != "networks" or certificate.destination.kind in EXPORTED:
        return None
    state = state_of(file, certificate, certificate.destination, known)
    if not state.state.confirmed:
        raise CheckpointError(f"{place}: is not of {file.name}, which is {state}; convert anew, or remove it")
    return certificate


def _certified(certificate: Certificate | None) -> Certified | None:
    """The largest error of every quantity, next to its budget."""
    if certificate is None:
        return None
    figures: dict[tuple[str, str], tuple[float, float]] = {}
    for check in certificate.checks:
        key = check.quantity, check.precision
        if check.budget is not None and check.error >= figures.get(key, (0.0, 0.0))[0]:
            figures[key] = check.error, check.budget
    rows = [(*key, *value) for key, value in figures.items()]
    return Certified(certificate.verdict, certificate.when, certificate.version, rows)


def _certify(file: Path, checkpoint: Checkpoint, certificate: Certificate) -> None:
    """Put a certificate into and beside the new file of the network that it speaks of."""
    destination = dataclasses.replace(
        certificate.destination,
        name=file.name,
        kind=Container.SAFETENSORS.value,
        sha256=None,
        key="",
        dialect=checkpoint.dialect,
        origin="",
    )
    issued = dataclasses.replace(certificate, destination=destination)
    embed_certificate(file, checkpoint, checkpoint.dialect, issued)
    write_certificate(issued, file, file)
