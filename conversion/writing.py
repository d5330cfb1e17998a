"""How every conversion writes: into a partial path, read back, proven and certified before it gets its name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from conversion.proof.certificate import Certificate, certificate_path, certify, party
from conversion.proof.proof import Proof
from conversion.result import Conversion, DifferentError
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint, network_digest
from unet_core.errors import CheckpointError
from unet_core.files import atomic, check_target, sha256_of
from unet_core.progress import Progress, silent
from unet_core.training.state import TrainingState, difference


@dataclass(frozen=True)
class Options:
    """What a person says of the writing; see `conversion.convert`."""

    force: bool = False
    verify: bool = True
    certificate: bool = False
    progress: Progress = silent
    shard_size: int | None = None
    """Of a target in several files, the most bytes in each; None: it is in one."""


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


@dataclass(frozen=True)
class Job:
    """A conversion whose source was read, and what it does at each stage."""

    source: Content
    write: Callable[[Path], None]
    """Writes the new file or folder to a partial path."""
    read_back: Callable[[Path], Content]
    prove: Callable[[Content, Progress], Proof]
    """Compares what was read back with the source."""
    embed: Callable[[Path, Certificate], None] | None = None
    """Puts the certificate into the file itself, where its kind has a place for one."""
    digested: Callable[[Path], Path] = lambda partial: partial
    """The file or folder whose sha256 is in the certificate."""


def convert_by(
    read: Callable[[], Job], src: Path, dst: Path, replaces: Callable[[Path], bool] | None, options: Options
) -> Conversion:
    """Write to `dst` what is read from `src`, and give it its name once all that `options` ask for is done.

    Args:
        read: reads the source.
        src, dst: the files or folders.
        replaces: whether a given folder may be replaced (`unet_core.files.atomic`).
        options: as they are.

    Raises:
        CheckpointError: `dst` cannot be written, or comes back otherwise.
        DifferentError: the proof failed.
    """
    check_target(dst, force=options.force, replaces=replaces, companion=certificate_path(dst))
    progress, proof, issued = options.progress, None, None
    progress(f"reading {src.name}", 0.0)
    job = read()
    source = job.source
    with atomic(dst, force=options.force, replaces=replaces, companion=certificate_path(dst)) as partial:
        progress(f"writing {dst.name}", 0.05)
        job.write(partial)
        if options.verify or source.state is not None:
            progress(f"reading {dst.name} back", 0.1)
            back = job.read_back(partial)
            if source.state is not None:
                _require_same(source.state, back, dst)
        if options.verify:
            proof = job.prove(back, lambda text, done: progress(text, 0.15 + 0.85 * done))
            if not proof.equal:
                raise DifferentError(f"{dst}: not written: {proof.verdict}", proof)
        if proof is not None and options.certificate and source.checkpoint.evidence.by != "nothing":
            ends = ((src, proof.a, source), (dst, proof.b, back))
            parties = (
                party(path, side, of.checkpoint, kind=of.kind, sha256=of.sha256, state=of.state)
                for path, side, of in ends
            )
            issued = certify(proof, *parties, when=datetime.now(UTC))
            if job.embed is not None:
                job.embed(partial, issued)
            issued = write_certificate(issued, partial, job.digested(partial))
    return Conversion(src, dst, source.checkpoint, proof, source.state, certificate=issued)


def _require_same(state: TrainingState, back: Content, dst: Path) -> None:
    """Raise CheckpointError where a training came back otherwise: a bug of ours, or a disk that keeps nothing."""
    if back.state is None:
        raise CheckpointError(f"{dst}: not written: its training did not come back")
    changed = difference(state, back.state)
    if changed:
        arrays = f"{len(changed)} arrays came back otherwise, {changed[0]} among them"
        raise CheckpointError(f"{dst}: not written: {arrays}")


@contextmanager
def unchanged(path: Path, wanted: bool = True) -> Iterator[str | None]:
    """The sha256 of a file or directory that is read inside.

    Args:
        path: which.
        wanted: False: None, and nothing is done.

    Raises:
        CheckpointError: it is another one afterwards, so that nobody knows which one was read.
    """
    before = sha256_of(path) if wanted else None
    yield before
    if wanted and sha256_of(path) != before:
        raise CheckpointError(f"{path}: changed while it was read; convert it again")


def embed_certificate(partial: Path, checkpoint: Checkpoint, dialect: str, certificate: Certificate) -> None:
    """Write a network to a .safetensors file together with what was proven of it.

    Raises:
        CheckpointError: it is not the network that comes back.
    """
    text = certificate.to_json(indent=None)
    safetensors_file.write(partial, checkpoint, dialect=dialect, certificate=text)
    if network_digest(safetensors_file.read(partial)) != certificate.destination.network:
        raise CheckpointError(f"{partial.name}: not written: its tensors came back otherwise")


def write_certificate(certificate: Certificate, partial: Path, written: Path) -> Certificate:
    """Write the certificate of the file or directory `partial` next to it, with the sha256 of what is in `written`.

    Args:
        certificate: without that digest.
        partial: what will get its name together with the certificate (`unet_core.files.atomic`).
        written: that file or directory; of a run, its state.
    """
    destination = replace(certificate.destination, sha256=sha256_of(written))
    whole = replace(certificate, destination=destination)
    certificate_path(partial).write_text(whole.to_json() + "\n", encoding="utf-8")
    return whole
