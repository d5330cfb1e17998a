"""The main job from end to end: `python -m examples.demo --out demo` (or `make demo`).

Trains a network in PyTorch on the built-in pictures of cells, moves the run to JAX with a proof, and goes on
there to the last step. Then both twins predict pictures that were not trained on; the run is moved back, no bit of it
changed, and the network written as a `.pt`. A picture shows the losses across the move, and what the twins compute.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import torch
import tyro

import unet_jax
import unet_torch
from conversion.containers import read
from conversion.files import convert
from conversion.proof.certificate import certificate_path
from conversion.runs import read_run
from conversion.training import train
from examples.stories import run_story
from unet_cli.messages import printed
from unet_cli.tables import print_conversion, progress_bar
from unet_compare.page.picture import Answers, draw
from unet_core import ConfigError, UNetConfig, UNetError
from unet_core.data.opening import SYNTHETIC
from unet_core.data.pictures import as_float
from unet_core.data.synthetic import Synthetic
from unet_core.errors import RunError, some
from unet_core.training.run import BEST, Backend
from unet_core.training.schedule import Schedule
from unet_core.training.state import difference
from unet_core.training.train_config import TrainConfig

STEPS = 210
FEATURES = (16, 32, 64, 128, 256)
"""A quarter of the full network's channels: the demo is to take no longer than two minutes on two cores."""
UNSEEN = Synthetic(chosen=(64, 65, 66, 67))
"""Pictures of the same kind that are not among those of the training."""


@dataclass(frozen=True)
class Demo:
    """Train a network in PyTorch, go on with it in JAX, prove the move, and compare the twins' outputs."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo")
    """The folder for the runs and the picture; what an earlier demo left in it is replaced."""
    features: tuple[int, ...] = FEATURES
    """Channels of each level; of the full network they are 64 128 256 512 1024."""
    steps: int = STEPS
    """Training steps; five of seven are made in PyTorch, the others in JAX."""

    @property
    def recipe(self) -> TrainConfig:
        """How the network is trained."""
        return TrainConfig(
            features=self.features,
            steps=self.steps,
            batch=2,
            crop=96,
            validation=4,
            schedule=Schedule("cosine", warmup=10),
        )

    @printed()
    def run(self) -> None:
        """Do it all; prints as it goes.

        Raises:
            UNetError: too few steps, or what training and converting raise.
        """
        if self.steps < 2:
            raise ConfigError(f"--steps {self.steps}: give 2 or more, for a training in two pieces")
        run, moved, back = (self.out / name for name in ("run", "run_jax", "run_back"))
        for path in (run, moved, back):
            shutil.rmtree(path, ignore_errors=True)
            certificate_path(path).unlink(missing_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)
        switch = self.steps * 5 // 7

        recipe, plan = self.recipe, self.recipe.schedule
        widths = "" if self.features == UNetConfig.features else f" --features {' '.join(map(str, self.features))}"
        print(
            f"$ unet train --backend torch --data {SYNTHETIC} --out {run}{widths} --steps {self.steps} "
            f"--until {switch} --batch {recipe.batch} --crop {recipe.crop} --validation {recipe.validation:g} "
            f"--schedule {plan.schedule} --warmup {plan.warmup}"
        )
        self._train(run, "torch", switch)

        print(f"\n$ unet convert {run} {moved} --to jax")
        with progress_bar() as progress:
            print_conversion(convert(run, moved, to="jax", progress=progress))

        print(f"\n$ unet train --resume --out {moved}")
        self._train(moved, "jax", self.steps)

        answers = answer(moved / BEST)
        score = np.mean([one.iou for one in answers])
        apart, rounding = max(one.apart for one in answers), max(one.rounding for one in answers)
        print(
            f"\nBoth twins predict {len(answers)} pictures that were not trained on, with the best network of the run."
        )
        print(f"IoU of the cells: {score:.3f}")
        print(f"Their probabilities differ by {apart:.1e} at most; torch's own rounding error is {rounding:.1e}.")
        picture = self.out / "story.png"
        draw(moved, answers[0], picture)
        print(f"Losses and answers are drawn in {picture}.")

        print(f"\n$ unet convert {moved} {back} --to torch --no-verify")
        print_conversion(convert(moved, back, to="torch", verify=False))
        states = read_run(moved).state, read_run(back).state
        check_same("state", difference(*states), len(states[0].arrays()))

        best, file = moved / BEST, self.out / "unet.pt"
        print(f"\n$ unet convert {best} {file} --force --no-verify")
        print_conversion(convert(best, file, force=True, verify=False))
        kept, written = read(best).tensors, read(file).tensors
        check_same("network", [key for key in kept if kept[key].tobytes() != written[key].tobytes()], len(kept))

        print("\nTo use the network:")
        print(f'    model = unet_torch.load("{file}")  # NCHW; a plain state_dict for any other code')
        print(f'    model = unet_jax.load("{best}")  # NHWC')
        print(f"    unet predict {moved} PICTURES --out masks")

    def _train(self, path: Path, backend: Backend, until: int) -> None:
        """Start the run in the folder `path`, or go on with it."""
        recipe, resume = self.recipe, path.exists()
        with progress_bar() as progress:
            done = train(
                path, backend=backend, data=SYNTHETIC, recipe=recipe, resume=resume, until=until, progress=progress
            )
        if done.stopped_by is not None:
            raise RunError(f"{path}: was stopped after step {done.step}")
        print(f"{done.step} of {done.steps} steps are made; best mean IoU {done.best:.3f}")


def check_same(what: str, changed: Sequence[str], arrays: int) -> None:
    """Say that a conversion has kept everything.

    Raises:
        UNetError: it has not; `changed` names what is not the same.
    """
    if changed:
        raise UNetError(f"the {what} was changed by its conversion: {some(changed)}")
    print(f"All {arrays} arrays of the {what} are the same in every bit.")


def answer(path: Path) -> list[Answers]:
    """What both twins, each with its own reading of the checkpoint, make of the unseen pictures."""
    in_torch, in_jax = unet_torch.load(path), unet_jax.load(path)
    pairs = [UNSEEN.pair(index) for index in range(len(UNSEEN))]
    x = np.stack([as_float(pair.image) for pair in pairs])
    nchw = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.inference_mode():
        theirs = in_torch(nchw)[:, 0].numpy()
        exact = in_torch.double()(nchw.double())[:, 0].numpy()
    ours = np.asarray(in_jax(jnp.asarray(x)))[..., 0]
    return [
        Answers(image, pair.labels, one, other, float(np.abs(one - reference).max()))
        for image, pair, one, other, reference in zip(x, pairs, theirs, ours, exact, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(run_story(Demo, "demo", "examples.demo"))
