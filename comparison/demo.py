"""The main job from end to end: `python -m comparison.demo --out demo` (or `make demo`).

Trains the full network in PyTorch for a few steps on the built-in pictures of cells; converts the checkpoint to Orbax,
to safetensors and back, with a proof each time; and draws what both twins make of a picture that was not trained on.
"""

import itertools
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import torch
import tyro

import unet_jax
import unet_torch
from comparison.picture import Answers, draw
from conversion.containers import read
from conversion.files import convert
from conversion.outcome import DifferentError
from conversion.training import train
from unet_cli.tables import print_conversion, print_proof, progress_bar
from unet_core import UNetConfig, UNetError
from unet_core.pictures import as_float
from unet_core.recipe import Recipe
from unet_core.run import BEST
from unet_core.schedule import Schedule
from unet_core.source import SYNTHETIC
from unet_core.synthetic import Synthetic

STEPS = 100
CROP = 96


@dataclass(frozen=True)
class Demo:
    """Train the full network briefly in PyTorch, port it to JAX and back, prove each step, and draw the answers."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo")
    """The folder for the checkpoints and the picture; what an earlier demo left in it is replaced."""
    features: tuple[int, ...] = UNetConfig.features
    """Channels of each level; the full network by default."""
    steps: int = STEPS
    """Training steps."""

    def run(self) -> None:
        """Do it all; prints as it goes."""
        self.out.mkdir(parents=True, exist_ok=True)
        run = self.out / "run"
        shutil.rmtree(run, ignore_errors=True)
        schedule = Schedule("cosine", warmup=10)
        recipe = Recipe(
            features=self.features, steps=self.steps, batch=2, crop=CROP, validation=4, log_every=1, schedule=schedule
        )
        print(f"Training a UNet {self.features} in PyTorch {torch.__version__} for {self.steps} steps")
        with progress_bar() as progress:
            train(run, backend="torch", data=SYNTHETIC, recipe=recipe, progress=progress)
        model = unet_torch.load(run / BEST)
        image = as_float(Synthetic().pair(len(Synthetic()) - 1).image)
        chain = [self.out / name for name in ("unet.pt", "unet_orbax", "unet.safetensors", "unet_back.pt")]
        unet_torch.save(model, chain[0], force=True)
        for src, dst in itertools.pairwise(chain):
            print(f"\n$ unet convert {src} {dst} --force")
            with progress_bar() as progress:
                done = convert(src, dst, force=True, progress=progress)
            if src is chain[0]:
                print_conversion(done)
            elif done.proof is not None:
                print(f"Again {done.proof.verdict}.")
        first, last = (read(path).tensors for path in (chain[0], chain[-1]))
        same = sum(first[key].tobytes() == last[key].tobytes() for key in first)
        print(f"\n{chain[0].name} and {chain[-1].name}: {same} of {len(first)} tensors are the same in every bit")
        if same != len(first):
            raise UNetError("the way there and back changed a tensor")
        picture = self.out / "twins.png"
        answers = answer(chain[0], chain[1], image)
        draw(answers, picture)
        print(f"The picture of both answers is in {picture}: they differ by {answers.difference.max():.1e} at most.")


def answer(torch_path: Path, jax_path: Path, image: np.ndarray) -> Answers:
    """What both twins, each loaded from its own checkpoint, make of the image."""
    in_torch, in_jax = unet_torch.load(torch_path), unet_jax.load(jax_path)
    x = image[None]
    nchw = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.inference_mode():
        theirs = in_torch(nchw)[0, 0].numpy()
        exact = in_torch.double()(nchw.double())[0, 0].numpy()
    ours = np.asarray(in_jax(jnp.asarray(x)))[0, :, :, 0]
    return Answers(image, theirs, ours, float(np.abs(theirs - exact).max()))


def main() -> int:
    """Run the demo; returns the exit code."""
    demo = tyro.cli(Demo, prog="python -m comparison.demo")
    started = time.monotonic()
    try:
        demo.run()
    except DifferentError as error:
        print_proof(error.proof)
        return 1
    except (UNetError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print(f"Done in {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
