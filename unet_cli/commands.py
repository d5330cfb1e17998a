"""The commands and their arguments. Each one's fields are its command line, each docstring its help."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unet_core.errors import UNetError


@dataclass(frozen=True)
class Inspect:
    """Say what a checkpoint is: kind, config, tensors, and what looks wrong with it. Never runs code from it.

    Example: unet inspect model.pt
    """

    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CKPT")]]
    """A .pt, .pth or .safetensors file, or an Orbax directory."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Print what `conversion.inspect` finds."""
        from conversion.inspection import inspect
        from unet_cli.tables import print_inspection

        found = inspect(self.checkpoint)
        if self.json:
            print(found.to_json())
        else:
            print_inspection(found)
        return 0


@dataclass(frozen=True)
class Convert:
    """Convert a checkpoint, prove that it is the same network, and only then give it its name.

    The kinds go by suffix: .pt, .pth, .safetensors, or none for an Orbax directory.

    Example: unet convert model.pt model_jax
    """

    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """The checkpoint to read."""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    """The checkpoint to write."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace DST where it exists."""
    verify: bool = True
    """Run both networks and compare them before DST gets its name."""

    def run(self) -> int:
        """Convert, and print what was written and proven."""
        from conversion.files import DifferentError, convert
        from unet_cli.tables import print_conversion, print_proof, progress_bar

        try:
            with progress_bar() as progress:
                done = convert(self.src, self.dst, force=self.force, verify=self.verify, progress=progress)
        except DifferentError as error:
            print_proof(error.proof)
            print(error)
            return 1
        print_conversion(done)
        return 0


@dataclass(frozen=True)
class Verify:
    """Run two checkpoints on the same inputs and compare logits, gradients and running statistics.

    Exit code 1, and the first layer that departs, where they are not the same network.

    Example: unet verify model.pt model_jax --size 75x91
    """

    a: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="A")]]
    """The checkpoint whose float64 answers are the reference."""
    b: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="B")]]
    """The checkpoint to compare with it."""
    size: Annotated[str | None, tyro.conf.arg(metavar="HxW")] = None
    """Height and width of the inputs, in pixels; by default an odd and an even size."""
    image: tuple[Annotated[Path, tyro.conf.arg(metavar="IMAGE")], ...] = ()
    """Real images to use instead of a photograph."""
    seed: int = 0
    """Of the random inputs."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the report to this file too; one that exists is replaced if it ends in .json."""

    def run(self) -> int:
        """Print the proof; 1 where the networks differ."""
        from conversion.proof import verify
        from unet_cli.tables import print_proof, progress_bar
        from unet_core.files import atomic, check_target

        if self.seed < 0:
            raise UNetError(f"--seed {self.seed}: give a whole number from 0 up")
        if self.json is not None:
            check_target(self.json, force=self.json.suffix == ".json")  # only an earlier report is replaced
        with progress_bar() as progress:
            proof = verify(
                self.a, self.b, size=_parse_size(self.size), images=self.image, seed=self.seed, progress=progress
            )
        print_proof(proof)
        if self.json is not None:
            with atomic(self.json, force=True) as partial:
                partial.write_text(proof.to_json() + "\n", encoding="utf-8")
        return 0 if proof.equal else 1


def _parse_size(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size)
    if match is None:
        raise UNetError(f"--size {size}: give height and width as HxW, for example 75x91")
    return int(match[1]), int(match[2])
