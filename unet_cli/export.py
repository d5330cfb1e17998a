"""`unet export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from unet_cli.options import ON_CPU, SourceOptions, option, parse_size


@dataclass(frozen=True, kw_only=True)
class Export(SourceOptions):
    """Write a network for another tool: an ONNX file, a StableHLO program that needs JAX alone, or readable code.

    What was written is run by that tool (onnxruntime, or a Python of its own) and compared with the network on three
    inputs before DST gets its name. What unet predict does with a picture before the network, and with its answer, is
    described in the file.

    Example: unet export run model.onnx --answer probabilities

    Example: unet export model_jax net.py --to torch

    Example: unet export model.pt model.stablehlo --size 256x256 --platforms cpu,cuda,tpu
    """

    relief: ClassVar[str] = f"export without the proof (--no-verify), or {ON_CPU}"

    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """Any checkpoint that unet inspect reads, or the folder of a run (its best network)."""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    """The file to write: .onnx, .stablehlo, or .py for code, with its weights beside it in .safetensors."""
    to: Annotated[Literal["onnx", "stablehlo", "flax", "torch"] | None, option("onnx|stablehlo|flax|torch")] = None
    """The format, where the suffix of DST does not tell it. Code (.py) is of Flax NNX; of PyTorch with --to torch."""
    answer: Literal["network", "logits", "probabilities", "classes"] = "network"
    """What the file answers: what the network does when it is called; its logits; their sigmoid or softmax; or of every
    pixel the class. The last two as unet predict makes them."""
    size: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("HxW")] = ()
    """Of a StableHLO program, height and width of the pictures, in pixels. With --module, where the code is read as
    well; the first, of several."""
    batch: Annotated[int | None, option("N")] = None
    """Of a StableHLO program, how many pictures at once; by default any number."""
    platforms: Annotated[str | None, option("NAME,...")] = None
    """Of a StableHLO program, where it shall run: some of cpu, cuda, rocm, tpu; by default cpu,cuda,tpu."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace DST where it exists."""
    verify: bool = True
    """Run what was written, and compare, before DST gets its name."""
    certificate: bool = True
    """Write what was proven as DST.certificate.json, which unet verify --certificate checks at any time."""

    def run(self) -> int:
        """Export, and print what was written and proven."""
        from conversion import DifferentError, export
        from unet_cli.tables import print_conversion, print_proof, progress_bar

        try:
            with progress_bar() as progress:
                done = export(
                    self.src,
                    self.dst,
                    to=self.to,
                    answer=self.answer,
                    size=self._pixels,
                    batch=self.batch,
                    platforms=None if self.platforms is None else self.platforms.split(","),
                    hints=self.hints(None),
                    force=self.force,
                    verify=self.verify,
                    certificate=self.certificate,
                    progress=progress,
                )
        except DifferentError as error:
            print_proof(error.proof)
            print(error)
            return 1
        print_conversion(done)
        return 0

    @property
    def _pixels(self) -> tuple[int, ...] | None:
        """Of the pictures; where the format has one size."""
        fixed = self.module is None or self.to == "stablehlo" or self.dst.suffix.lower() == ".stablehlo"
        return next(map(parse_size, self.size), None) if fixed else None
