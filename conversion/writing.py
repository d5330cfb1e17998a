"""How every conversion writes: into a partial path, read back, proven and certified before it gets its name."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from conversion.proof.certificate import Certificate, certificate_path, certify, party, write_certificate
from conversion.proof.proof import Proof
from conversion.result import Conversion, DifferentError
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.errors import CheckpointError
from unet_core.files import atomic, check_target
from unet_core.progress import Progress, silent
from unet_core.training.state import TrainingState, difference


@dataclass(frozen=True)
class Options:
    """What a person says of the writing; see `conversion.convert`."""

    force: bool = False
    verify: bool = True
    certificate: bool = False
    progress: Progress = silent


@dataclass(frozen=True)
class Content:
    """What one of the two files or folders of a conversion holds."""

    checkpoint: Checkpoint
    kind: str
    """What a person calls it, as in `conversion.proof.certificate.Party`."""
    state: TrainingState | None = None
    """The training, where all of it is converted."""
    sha256: str | None = None
    """Of the source, where it is to be certified."""


class Place(TypedDict):
    """What `unet_core.files.atomic` and `check_target` take."""

    force: bool
    replaces: Callable[[Path], bool] | None
    companion: Path


def checked_place(dst: Path, options: Options, replaces: Callable[[Path], bool] | None) -> Place:
    """Where `dst` goes together with its certificate.

    Args:
        dst: the file or folder to write.
        options: whether it may replace one.
        replaces: whether it may replace a given folder.

    Raises:
        CheckpointError: it may not be written.
    """
    place: Place = {"force": options.force, "replaces": replaces, "companion": certificate_path(dst)}
    check_target(dst, **place)
    return place


@dataclass(frozen=True)
class Job(ABC):
    """A conversion whose source was read; each kind of conversion says what it does at each stage."""

    src: Path
    dst: Path
    source: Content

    @abstractmethod
    def write(self, partial: Path) -> None:
        """Write the new file or folder."""

    @abstractmethod
    def read_back(self, partial: Path) -> Content:
        """What was written."""

    @abstractmethod
    def prove(self, back: Content, progress: Progress) -> Proof:
        """Compare what was written with the source."""

    def embed(self, partial: Path, certificate: Certificate) -> None:  # noqa: B027  (most kinds have no place)
        """Put the certificate into the file itself, where its kind has a place for one."""

    def digested(self, partial: Path) -> Path:
        """The file or folder whose sha256 is in the certificate."""
        return partial

    def convert(self, place: Place, options: Options) -> Conversion:
        """Write `dst`, and give it its name once all that `options` ask for is done.

        Raises:
            CheckpointError: it cannot be written, or comes back otherwise.
            DifferentError: the proof failed.
        """
        source, name, progress = self.source, self.dst.name, options.progress
        proof = issued = None
        with atomic(self.dst, **place) as partial:
            progress(f"writing {name}", 0.05)
            self.write(partial)
            if options.verify or source.state is not None:
                progress(f"reading {name} back", 0.1)
                back = self.read_back(partial)
                self._check_arrays(back)
            if options.verify:
                proof = self.prove(back, lambda text, done: progress(text, 0.15 + 0.85 * done))
                if not proof.equal:
                    raise DifferentError(f"{self.dst}: not written: {proof.verdict}", proof)
            if proof is not None and options.certificate and source.checkpoint.evidence.by != "nothing":
                parties = (
                    party(path, side, one.checkpoint, kind=one.kind, sha256=one.sha256, state=one.state)
                    for path, side, one in ((self.src, proof.a, source), (self.dst, proof.b, back))
                )
                issued = certify(proof, *parties, when=datetime.now(UTC))
                self.embed(partial, issued)
                issued = write_certificate(issued, partial, self.digested(partial))
        return Conversion(self.src, self.dst, source.checkpoint, proof, source.state, certificate=issued)

    def _check_arrays(self, back: Content) -> None:
        if self.source.state is None or back.state is None:
            return
        changed = difference(self.source.state, back.state)
        if changed:  # a bug of ours, or a disk that does not keep what is written
            raise CheckpointError(
                f"{self.dst}: not written: {len(changed)} arrays came back otherwise, {changed[0]} among them"
            )
