"""Whether two files are those of a certificate: their bytes, and the networks in them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from conversion.code import Known, known_of
from conversion.containers import read, tells
from conversion.proof.certificate import (
    EXPORTED,
    FLAX,
    RUN,
    SOURCE,
    TORCH_CODE,
    Certificate,
    Party,
    read_certificate,
    weights_of,
)
from conversion.proof.proof import Proof
from conversion.proof.verification import verify
from conversion.runs import state_at, state_path
from conversion.scripts import understood_training
from unet_core.checkpoints.checkpoint import network_digest
from unet_core.checkpoints.containers import Container, existing_container
from unet_core.checkpoints.dialects import GENERIC
from unet_core.checkpoints.reading import NO_HINTS, SEMANTICS, Hints
from unet_core.errors import CheckpointError, MissingFrameworkError, UNetError
from unet_core.files import sha256_of
from unet_core.paths import as_source, present
from unet_core.progress import Progress, silent
from unet_core.training.run import read_run_config
from unet_core.training.state import state_digest


class State(Enum):
    """What became of a file since the proof; the value is a sentence's end."""

    SAME = "the file that was proven, byte for byte"
    WITHIN = "holds the network that was proven, bit for bit"
    UNREAD = "the file that was proven, byte for byte; the network in it was not read"
    REPACKED = "another file, but the network in it is the same, bit for bit"
    RETRAINED = "another file: the network in it is the same, bit for bit, but not the training beside it"
    OTHER = "another file: the network in it is another one"
    GONE = "not there"
    CHANGED = "not the file that was proven; what it holds now is not read"
    UNREADABLE = "not the file that was proven, and cannot be read"

    @property
    def confirmed(self) -> bool:
        """Whether what was proven is still there."""
        return self in (State.SAME, State.WITHIN, State.UNREAD)


@dataclass(frozen=True)
class FileState:
    """What became of one of the two."""

    path: Path
    state: State
    detail: str = ""
    """What else there is to say."""

    def __str__(self) -> str:
        return f"{self.state.value}{f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class Confirmation:
    """What `confirm` found.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> done = conversion.convert("model.pt", "model_jax")
        >>> found = conversion.confirm("model_jax.certificate.json")
        >>> print(found.a)
        the file that was proven, byte for byte
    """

    path: Path
    certificate: Certificate
    a: FileState
    """Of the file that was converted."""
    b: FileState
    """Of the file that was written."""
    proof: Proof | None = None
    """Where it was made again."""

    @property
    def confirmed(self) -> bool:
        """Whether both are the files that were proven, and the proof, where it was made again, was passed."""
        return self.a.state.confirmed and self.b.state.confirmed and (self.proof is None or self.proof.equal)

    @property
    def damaged(self) -> FileState | None:
        """The first of the two that cannot be read any more."""
        return next((one for one in (self.a, self.b) if one.state is State.UNREADABLE), None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.proof is not None and not self.proof.equal:
            return self.proof.verdict
        parted = [
            f"{letter} is {'gone' if one.state is State.GONE else 'not what was proven'}"
            for letter, one in (("A", self.a), ("B", self.b))
            if not one.state.confirmed
        ]
        return ", ".join(parted) or "both are what was proven"


def confirm(
    path: str | Path,
    a: str | Path | None = None,
    b: str | Path | None = None,
    *,
    hints: Hints = NO_HINTS,
    again: bool = False,
    size: tuple[int, ...] | None = None,
    images: Sequence[str | Path] = (),
    progress: Progress = silent,
) -> Confirmation:
    """Hold two files against the certificate of a conversion.

    Args:
        path: the certificate, `DST.certificate.json`; or a `.safetensors` file that has it in its metadata.
        a: the first of the two files or folders; None: that of the name in the certificate, next to it.
        b: the second, likewise.
        hints: what `a` does not tell; what the certificate tells of it need not be said again.
        again: make the proof again, on both as they are.
        size: of the inputs of that, see `conversion.proof.samples.samples`; the seed is that of the certificate.
        images: likewise.
        progress: called before each stage with a few words and the fraction that is done.

    Raises:
        CheckpointError: the certificate is missing or damaged; a file that is named is missing, or both are; or one is,
            and the proof is to be made again.
        MissingFrameworkError: a file that is not the one that was proven, or the proof, needs a framework that is not
            installed.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> done = conversion.convert("model.pt", "model.safetensors")
        >>> conversion.confirm("model.safetensors.certificate.json").confirmed
        True
    """
    path = as_source(path)
    certificate = read_certificate(path)
    first, second = _both(path, certificate, a, b, again=again)
    if again and certificate.destination.kind in EXPORTED:
        raise CheckpointError(f"{path}: what is exported is proven when it is written; export it again")
    progress(f"reading {first.name}", 0.0)
    of_a = state_of(first, certificate, certificate.source, hints)
    progress(f"reading {second.name}", 0.1)
    of_b = state_of(second, certificate, certificate.destination, NO_HINTS)
    found = Confirmation(path, certificate, of_a, of_b)
    if not again or found.damaged:
        return found
    proof = verify(
        first,
        second,
        hints=_hints(certificate, certificate.source, hints),
        size=size,
        images=images,
        seed=certificate.seed,
        progress=lambda text, done: progress(text, 0.2 + 0.8 * done),
    )
    return dataclasses.replace(found, proof=proof)


def _both(
    path: Path, certificate: Certificate, a: str | Path | None, b: str | Path | None, *, again: bool
) -> tuple[Path, Path]:
    """The two files, at least one of which is there."""
    inside = certificate.destination.sha256 is None
    first = path.parent / certificate.source.name if a is None else as_source(a)
    default = path if inside else path.parent / certificate.destination.name
    second = default if b is None else as_source(b)
    missing = [one for one, named in ((first, a), (second, b)) if named is not None and not present(one)]
    gone = [one for one in (first, second) if not present(one)]
    if missing or len(gone) == 2 or (again and gone):
        these = " and ".join(map(str, missing or gone))
        raise CheckpointError(f"{these}: not there; name both files: --certificate {path} A B")
    return first, second


def state_of(path: Path, certificate: Certificate, party: Party, hints: Hints) -> FileState:
    """What became of one of the two."""
    if not present(path):
        came = f" (it was read from {party.origin})" if party.origin else ""
        return FileState(
            path, State.GONE, f"deleted, renamed or elsewhere{came}; name both files, A and B, to say where they are"
        )
    if party.kind in EXPORTED:
        same = sha256_of(path) == party.sha256
        return _with_weights(path, certificate) if same else FileState(path, State.CHANGED)
    same = False
    try:
        proven = _proven(path, party)
        if not present(proven):
            return FileState(path, State.GONE, f"the run has no state of step {party.step} any more")
        same = party.sha256 is not None and sha256_of(proven) == party.sha256
        said = _hints(certificate, party, hints)
        told = party.kind in (RUN, SOURCE, Container.ONNX.value) or said.module is not None
        if "graph" in certificate.config and not told and not tells(path):
            if same:
                return FileState(path, State.UNREAD, "to read it, name its code, --module FILE.py:Class")
            raise CheckpointError("to see what is in it, name its code, --module FILE.py:Class")
        network, training = _digests(path, party, said)
    except MissingFrameworkError as error:
        if not same:
            raise
        return FileState(path, State.UNREAD, str(error))
    except UNetError as error:
        if same:
            raise
        return FileState(path, State.UNREADABLE, str(error))
    if (network, training) == (party.network, party.training):
        return FileState(path, State.SAME if same else State.WITHIN if party.sha256 is None else State.REPACKED)
    if same:
        raise CheckpointError(
            f"{path}: is the file that was proven, but read as another network, by what you say or by this release"
        )
    return FileState(path, State.RETRAINED if network == party.network else State.OTHER)


def _with_weights(path: Path, certificate: Certificate) -> FileState:
    """What became of an exported file that is the one that was proven, and of the weights beside it, if it is code."""
    weights = weights_of(path)
    if certificate.destination.kind not in (FLAX, TORCH_CODE):
        return FileState(path, State.SAME)
    said = f"its weights, {weights.name}"
    if not present(weights):
        return FileState(path, State.GONE, said)
    try:
        existing_container(weights)  # refuses what would be read without end
        same = sha256_of(weights) == certificate.source.sha256  # the code may read the source itself
        same = same or network_digest(read(weights, Known(unchecked=True))) == certificate.destination.network
    except UNetError as error:
        return FileState(path, State.UNREADABLE, f"{said}: {error}")
    return (
        FileState(path, State.SAME) if same else FileState(path, State.OTHER, f"{said}, are not those that were proven")
    )


def _proven(path: Path, party: Party) -> Path:
    """The file or directory whose digest the certificate has."""
    if party.kind != RUN or party.step is None:
        if party.kind != SOURCE:
            existing_container(path)  # refuses what would be read without end
        return path
    return state_path(path, read_run_config(path), party.step)


def _digests(path: Path, party: Party, hints: Hints) -> tuple[str, str | None]:
    """Of the network, and of the training."""
    if party.training is None:
        return network_digest(read(path, hints)), None
    state = state_at(path, party.step) if party.step is not None else understood_training(path, hints)[0].state
    return network_digest(state.network), state_digest(state)


def _hints(certificate: Certificate, party: Party, hints: Hints) -> Known:
    """What nothing in a file tells, from the certificate; what a person says comes first."""
    given = known_of(hints)
    if party.kind == RUN or given.module is not None:
        return given
    known = {name: certificate.config[name] for name in SEMANTICS if name in certificate.config}
    known |= {"key": party.key or None, "dialect": GENERIC if party.dialect == GENERIC else None}
    said = {name: value for name in known if (value := getattr(given, name)) is not None}
    return dataclasses.replace(given, **{**known, **said}, where_needed=not said, unchecked=True)
