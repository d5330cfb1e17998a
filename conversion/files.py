"""A checkpoint from one file or directory into another, of the same kind or not."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversion.backends.backend import Framework, framework_of_kind, frameworks_of
from conversion.backends.frameworks import needed
from conversion.backends.pairs import paired
from conversion.code import Known, known_of
from conversion.containers import Opened, module_of, opened
from conversion.proof.certificate import certificate_path, certify, party, unchanged, write_certificate
from conversion.proof.proof import verify_runners
from conversion.result import Conversion, DifferentError
from conversion.runs import convert_run
from conversion.scripts import convert_training
from unet_core.checkpoints.checkpoint import Checkpoint, exported, network_digest
from unet_core.checkpoints.containers import Container, container_of
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import CheckpointError, MissingFrameworkError
from unet_core.files import atomic, check_target
from unet_core.progress import Progress, silent
from unet_core.training.run import BEST, is_run

if TYPE_CHECKING:
    from torch import nn


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: Framework | None = None,
    drop: Collection[str] = (),
    hints: Hints = NO_HINTS,
    module: "str | nn.Module | None" = None,
    kwargs: Mapping[str, Any] | None = None,
    out: int | str | None = None,
    sizes: Sequence[tuple[int, ...]] | None = None,
    example: str | Path | None = None,
    unchecked: bool | None = None,
    dialect: str = OWN.name,
    force: bool = False,
    verify: bool = True,
    certificate: bool = True,
    progress: Progress = silent,
    tell: Callable[[str], None] = print,
) -> Conversion:
    """Write the network of `src` to `dst`, every tensor bit for bit, with config and digests; or a whole training.

    Args:
        src, dst: `.pt`, `.pth`, `.safetensors`, or, without a suffix, an Orbax directory; or folders of runs.
        to: carry a whole training over to this framework: weights, statistics, the optimiser's moments, step, average,
            history, and so the position in data and schedule. `src` then is the folder of a run, which is not changed,
            and `dst` a new one, with which `train(dst, resume=True)` goes on; or `src` is the training file of a
            PyTorch script (`{"model": ..., "optimizer": optimizer.state_dict(), ...}`, .pt) and `dst` an Orbax
            directory, which `optimizer_to_optax` reads, or the other way round.
        drop: of a training file, the names of what cannot be carried and may be left behind, as the error lists them.
        hints: what `src` does not tell: whose names it has, where in it the network lies, what no shape shows.
        module: the network's own code, which is run: its class, or a function that builds it, as FILE.py:Name or
            package.module:Name; or a module that is built. The network is read from it, and proven against it.
        kwargs: what the class is called with.
        out: which of several answers is the network's, by index or key; None: the first.
        sizes: to read it at, where its code cannot be followed for sizes in general, or takes some alone.
        example: an .npz with an `input` and the `output` that the network's own code answered, NCHW.
        unchecked: convert even where nothing but `hints` tells what is computed. It is not called verified.
        dialect: whose names the tensors get in a `.pt`, `.pth` or `.safetensors`: one of
            `unet_core.checkpoints.dialects.NAMES`. An Orbax directory always has the NNX names; it remembers those
            that the network came with.
        force: replace `dst` where it exists.
        verify: before `dst` gets its name, run both networks and compare them, and of trainings an update as well
            (`conversion.verify`); takes both frameworks and about a minute for the full network on two cores.
        certificate: write what was proven beside `dst`, as `DST.certificate.json`, and into its metadata where it is a
            `.safetensors` file. A certificate that is there already goes with what `dst` was before.
        progress: called before each stage with a few words and the fraction that is done.
        tell: is told in a line what else there is to know.

    Raises:
        CheckpointError: `src` cannot be read, or `dst` cannot be written; nothing was written.
        RunError: the run in `src` has no sound state, or trains at present; nothing was written.
        DifferentError: the proof failed; nothing was written, and the error carries the proof.
        MissingFrameworkError: a kind, or the proof, needs a framework that is not installed.
    """
    src, dst = Path(src), Path(dst)
    hints = known_of(hints, module=module, kwargs=kwargs, out=out, sizes=sizes, example=example, unchecked=unchecked)
    options: dict[str, Any] = {"force": force, "verify": verify, "certificate": certificate and verify}
    options |= {"progress": progress}
    earlier = certificate_path(dst)
    stale = os.path.lexists(earlier)
    if drop and (to is None or is_run(src)):
        raise CheckpointError(f"--drop {' '.join(drop)}: is for the training files of scripts, with --to")
    if to is not None and not is_run(src):
        if dialect != OWN.name:
            raise CheckpointError(f"{dst}: a training file goes back under its own names; leave --dialect out")
        done = convert_training(src, dst, to=to, hints=hints, drop=drop, **options)
    elif to is not None:
        if hints != Known() or dialect != OWN.name:
            raise CheckpointError(f"{src}: is a run, which tells all of its network; leave dialects and the like out")
        done = convert_run(src, dst, to=to, tell=tell, **options)
    elif is_run(src):
        raise CheckpointError(
            f"{src}: is a run; say --to jax or --to torch to carry the training over, or name {src / BEST}, its network"
        )
    else:
        done = _convert_network(src, dst, hints=hints, dialect=dialect, **options)
    if stale and done.certificate is None:
        tell(f"{earlier}: removed, for it was of what {dst.name} was before")
    return done


def _convert_network(
    src: Path,
    dst: Path,
    *,
    hints: Hints,
    dialect: str,
    force: bool,
    verify: bool,
    certificate: bool,
    progress: Progress,
) -> Conversion:
    target = container_of(dst)
    if target is Container.ORBAX and dialect != OWN.name:
        raise CheckpointError(f"{dst}: an Orbax directory has the NNX names, not those of the dialect {dialect}")
    writer = module_of(target)
    place: dict[str, Any] = {"force": force, "companion": certificate_path(dst)}
    place["replaces"] = writer.is_orbax if target is Container.ORBAX else None
    check_target(dst, **place)
    progress(f"reading {src.name}", 0.0)
    with unchanged(src, certificate) as sha256:
        found = opened(src, hints)
    checkpoint = found.checkpoint
    if verify:
        _require(frameworks_of(found.framework, framework_of_kind(target)))
    certificate = certificate and checkpoint.evidence.by != "nothing"
    names = {} if target is Container.ORBAX else {"dialect": dialect}
    if names:
        try:
            exported(checkpoint, dialect)
        except CheckpointError as error:
            raise CheckpointError(f"{dst}: not written: {error}") from error
    proof = issued = None
    with atomic(dst, **place) as partial:
        progress(f"writing {dst.name}", 0.05)
        writer.write(partial, checkpoint, **names)
        if verify:
            progress(f"reading {dst.name} back", 0.1)
            back: Checkpoint = writer.read(partial)
            proof = verify_runners(
                *paired(found, Opened(back, container=target), (str(src), str(dst))),
                progress=lambda text, done: progress(text, 0.15 + 0.85 * done),
            )
            if not proof.equal:
                raise DifferentError(f"{dst}: not written: {proof.verdict}", proof)
            if certificate:
                source = party(src, proof.a, checkpoint, kind=found.kind, sha256=sha256)
                destination = party(dst, proof.b, back, kind=target.value, sha256=None)
                issued = certify(proof, source, destination, when=datetime.now(UTC))
                if target is Container.SAFETENSORS:  # the same tensors, and the certificate beside the record of them
                    writer.write(partial, checkpoint, **names, certificate=issued.to_json(indent=None))
                    if network_digest(writer.read(partial)) != destination.network:
                        raise CheckpointError(f"{dst}: not written: its tensors came back otherwise")
                issued = write_certificate(issued, partial, partial)
    return Conversion(src, dst, checkpoint, proof, certificate=issued)


def _require(frameworks: tuple[Framework, Framework]) -> None:
    """Find out before the work whether the proof can run."""
    try:
        for framework in frameworks:
            needed(f"conversion.backends.{framework}_backend")
    except MissingFrameworkError as error:
        raise MissingFrameworkError(f"{error}; or convert without the proof, which runs both: --no-verify") from error
