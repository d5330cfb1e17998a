"""A training in either framework, from one call."""

from collections.abc import Callable
from pathlib import Path

from conversion.containers import read
from conversion.frameworks import needed
from unet_core.errors import ConfigError
from unet_core.progress import Progress, silent
from unet_core.recipe import Recipe
from unet_core.run import Backend, Outcome, open_run


def train(
    out: str | Path,
    *,
    backend: Backend,
    data: str | Path,
    recipe: Recipe | None = None,
    resume: bool = False,
    compile: bool = False,  # noqa: A002  (torch's own word)
    remat: bool = False,
    progress: Progress = silent,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Train into the folder `out`; `unet_core.run` says what is then in it.

    Args:
        out: the run's folder; it is made.
        backend: the framework to train in, "jax" or "torch".
        data: a folder with `images/` and `masks/`, or "synthetic".
        recipe: how to train; None: as `Recipe()` says.
        resume: go on with the run in `out`, where there is one.
        compile: torch: run the network through `torch.compile`.
        remat: JAX: keep less for the backward pass, and compute it again.
        progress: is told where it is.
        tell: is told in a line what happens.

    Raises:
        unet_core.UNetError: bad data, a recipe that does not fit it, a folder that holds something else, a framework
            that is not installed, a loss that is no number, a full disk; in one line.
    """
    if (compile and backend != "torch") or (remat and backend != "jax"):
        raise ConfigError("--compile is for --backend torch, --remat for --backend jax")
    recipe = recipe or Recipe()
    trainer = needed(f"unet_{backend}.train")
    start = None if recipe.start is None else read(Path(recipe.start))
    opened = open_run(
        Path(out),
        backend=backend,
        recipe=recipe,
        data=str(data),
        start=start,
        resume=resume,
        progress=progress,
        tell=tell,
    )
    with opened as run:
        tell(str(run))
        options = {"compile": compile} if backend == "torch" else {"remat": remat}
        outcome: Outcome = trainer.train(run, **options, progress=progress, tell=tell)
    return outcome
