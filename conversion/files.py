"""A checkpoint from one file or directory into another, of the same kind or not."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Unpack

from conversion.backends.backend import Framework, backend_of, framework_of_kind, frameworks_of
from conversion.backends.pairs import paired
from conversion.code import Known, Told, known_of
from conversion.containers import Opened, opened
from conversion.formats import file_module_of, module_of, replaces_of
from conversion.proof.certificate import Certificate, certificate_path
from conversion.proof.proof import Proof, verify_runners
from conversion.result import Conversion
from conversion.runs import convert_run
from conversion.scripts import convert_training
from conversion.writing import Content, Job, Options, convert_by, embed_certificate, unchanged
from unet_core.checkpoints.checkpoint import exported
from unet_core.checkpoints.containers import Container, container_of
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.foreign.shards import whole_of
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import CheckpointError, MissingFrameworkError
from unet_core.files import check_target
from unet_core.paths import as_source, as_target, is_url, present
from unet_core.progress import Progress, silent
from unet_core.staging import at_hand
from unet_core.training.run import BEST, PROFILE, is_run

logger = logging.getLogger(__name__)


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: Framework | None = None,
    drop: Collection[str] = (),
    hints: Hints = NO_HINTS,
    dialect: str = OWN.name,
    force: bool = False,
    verify: bool = True,
    certificate: bool = True,
    shard_size: int | None = None,
    progress: Progress = silent,
    **told: Unpack[Told],
) -> Conversion:
    """Write the network of `src` to `dst`, every tensor bit for bit, with config and digests; or a whole training.

    Args:
        src: a file or folder of any kind (docs/checkpoints.md), or the folder of a run.
        dst: `.pt`, `.pth`, `.safetensors`, `.npz`, a folder `.dcp` of torch.distributed.checkpoint, or, without a
            suffix, with `.orbax` or a version (`model.v2`), an Orbax directory; or the folder of a run.
        to: carry a whole training over to this framework: weights, statistics, the optimiser's moments, step, average,
            history, and so the position in data and schedule. `src` then is the folder of a run, which is not changed,
            and `dst` a new one; or `src` is the training file of a PyTorch script (.pt) and `dst` an Orbax directory,
            which `optimizer_to_optax` reads, or the other way round (docs/switching.md).
        drop: of a training file, the names of what cannot be carried and may be left behind, as the error lists them.
        hints: what `src` does not tell: whose names it has, where in it the network lies, what no shape shows.
        dialect: whose names the tensors get in a `.pt`, `.pth` or `.safetensors`: one of
            `unet_core.checkpoints.dialects.NAMES`. An Orbax directory remembers those that it came with.
        force: replace `dst` where it exists.
        verify: before `dst` gets its name, run both networks and compare them, and of trainings an update as well.
        certificate: write what was proven as `DST.certificate.json`, and into the metadata of a `.safetensors` file.
        shard_size: write `dst`, a folder, as .safetensors files of at most so many bytes, and an index of them.
        progress: called before each stage with a few words and the fraction that is done.
        told: the network's own code and the like, see `conversion.code.Known`.

    Raises:
        CheckpointError: `src` cannot be read, or `dst` cannot be written; nothing was written.
        RunError: the run in `src` has no sound state, or trains at present; nothing was written.
        DifferentError: the proof failed; nothing was written, and the error carries the proof.
        MissingFrameworkError: a kind, or the proof, needs a framework that is not installed.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> conversion.convert("model.pt", "model_jax", verify=False).dst.name
        'model_jax'
    """
    src, dst = as_source(src), as_target(dst)
    hints = known_of(hints, **told)
    options = Options(force, verify, certificate and verify, progress, shard_size)
    earlier = certificate_path(dst)
    stale = present(earlier)
    if is_url(src):  # before it is fetched
        check_target(dst, force=force, replaces=lambda _: True, companion=earlier)
    with at_hand(src, lambda name: not name.startswith(f"{PROFILE}/")):
        done = _convert(src, dst, to, hints, dialect, drop, options)
    if stale and done.certificate is None:
        logger.warning("%s: removed, for it was of what %s was before", earlier, dst.name)
    return done


def _convert(
    src: Path,
    dst: Path,
    to: Framework | None,
    hints: Hints,
    dialect: str,
    drop: Collection[str],
    options: Options,
) -> Conversion:
    run = is_run(src)
    if options.shard_size is not None and (to is not None or dst.suffix):
        raise CheckpointError(
            f"{dst}: with --shard-size, it is a folder of a network's files: give a name without a suffix, and no --to"
        )
    if drop and (to is None or run):
        raise CheckpointError(f"--drop {' '.join(drop)}: is for the training files of scripts, with --to")
    if to is None:
        if not run:
            return _convert_network(src, dst, hints, dialect, options)
        raise CheckpointError(
            f"{src}: is a run; say --to jax or --to torch to carry the training over, or name {src / BEST}, its network"
        )
    if run:
        if hints != Known() or dialect != OWN.name:
            raise CheckpointError(f"{src}: is a run, which tells all of its network; leave dialects and the like out")
        return convert_run(src, dst, to, options)
    if dialect != OWN.name:
        raise CheckpointError(f"{dst}: a training file goes back under its own names; leave --dialect out")
    return convert_training(src, dst, to, hints, drop, options)


def _convert_network(src: Path, dst: Path, hints: Hints, dialect: str, options: Options) -> Conversion:
    target = Container.SHARDS if options.shard_size is not None else container_of(dst)
    src = whole_of(src)
    if target is Container.ORBAX and dialect != OWN.name:
        raise CheckpointError(f"{dst}: an Orbax directory has the NNX names, not those of the dialect {dialect}")
    module, file_module = module_of(target, options.shard_size), file_module_of(target, options.shard_size)

    def read() -> Job:
        with unchanged(src, options.certificate) as sha256:
            found = opened(src, hints)
        checkpoint = found.checkpoint
        if options.verify:
            _require(frameworks_of(found.framework, framework_of_kind(target)))
        if file_module is not None:
            try:
                exported(checkpoint, dialect)
            except CheckpointError as error:
                raise CheckpointError(f"{dst}: not written: {error}") from error

        def write(partial: Path) -> None:
            if file_module is None:
                module.write(partial, checkpoint)
            else:
                file_module.write(partial, checkpoint, dialect=dialect)

        def prove(back: Content, progress: Progress) -> Proof:
            other = Opened(back.checkpoint, container=target)
            return verify_runners(*paired(found, other, (str(src), str(dst))), progress=progress)

        def embed(partial: Path, certificate: Certificate) -> None:
            embed_certificate(partial, checkpoint, dialect, certificate)

        source = Content(checkpoint, found.kind, sha256=sha256)
        embeds = embed if target is Container.SAFETENSORS else None
        return Job(source, write, lambda partial: Content(module.read(partial), target.value), prove, embeds)

    return convert_by(read, src, dst, replaces_of(target), options)


def _require(frameworks: tuple[Framework, Framework]) -> None:
    """Find out before the work whether the proof can run."""
    try:
        for framework in frameworks:
            backend_of(framework)
    except MissingFrameworkError as error:
        raise MissingFrameworkError(f"{error}; or convert without the proof, which runs both: --no-verify") from error
