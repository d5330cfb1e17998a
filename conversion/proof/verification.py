"""Whether two checkpoints, models or training runs are the same: the public face of the proof."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from conversion.backends.pairs import runners_of
from conversion.code import Told, known_of
from conversion.proof.proof import Proof, verify_runners
from conversion.runs import read_run, verify_runs
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import CheckpointError
from unet_core.paths import as_source
from unet_core.progress import Progress, silent
from unet_core.training.run import BEST, is_run


def verify(
    a: Any,
    b: Any,
    *,
    hints: Hints = NO_HINTS,
    size: tuple[int, ...] | None = None,
    images: Sequence[str | Path] = (),
    seed: int = 0,
    progress: Progress = silent,
    **told: Unpack[Told],
) -> Proof:
    """Run two networks on the same inputs and compare logits, gradients and statistics against float64.

    Of two training runs, the networks of their newest states; and loss, gradients, moments, parameters, statistics and
    average of the next update that each would make, in float64.

    The reference is `a` in float64. In float64, `b` must agree with it to 1e-12 (gradients: 1e-11); in float32, the JAX
    twin's error may be 1.25 times torch's own at most. At the first check that fails, the layer that departs first is
    looked for, and no further input is tried.

    Args:
        a: the path of a checkpoint, a torch module of any class, or a model of `unet_jax`; or the folder of a run; it
            is not changed.
        b: the same.
        hints: what a file of another project does not tell. `key` and `dialect` are on `a`.
        size: of the inputs, in pixels, see `conversion.proof.samples.samples`.
        images: real ones, likewise.
        seed: of the random ones.
        progress: called before each stage with a few words and the fraction that is done.
        told: of the file `a`, see `conversion.code.Known`; with its code, that is run and `b` is judged by it.

    Raises:
        UNetError: a checkpoint or a run cannot be read or trusted, or a size or an image cannot be used.
        MissingFrameworkError: a framework is not installed.

    Examples:
        >>> import conversion, unet_torch
        >>> model = unet_torch.UNet(features=(4, 8))
        >>> proof = conversion.verify(model, conversion.to_jax(model), size=(8, 8))
        >>> proof.equal
        True
    """
    hints = known_of(hints, **told)
    inputs: dict[str, Any] = {"size": size, "images": images, "seed": seed}
    a, b = (as_source(side) if isinstance(side, str | Path) else side for side in (a, b))
    runs = [isinstance(side, Path) and is_run(side) for side in (a, b)]
    if all(runs):
        return verify_runs(read_run(a), read_run(b), progress=progress, **inputs)
    if any(runs):
        run, other = (a, b) if runs[0] else (b, a)
        raise CheckpointError(f"{run}: is a run, {other} is none; name {run / BEST}, its network, to compare that")
    return verify_runners(*runners_of(a, b, hints), **inputs, progress=progress)
