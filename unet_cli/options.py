"""What several commands are told: options on checkpoints of other projects, and sizes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from unet_core.config import Fit, Output
from unet_core.errors import UNetError

if TYPE_CHECKING:
    from conversion.code import Known

ON_CPU = "compute on the CPU (JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=)"


def option(metavar: str) -> Any:
    """How an option without a default stands in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What a person knows of a checkpoint of another project that nothing in the file tells."""

    module: Annotated[str | None, option("FILE.py:Class")] = None
    """The network's own code, which is run: its class, or a function that builds it, in a file, or package.module:Class
    for one that can be imported. The network is read from it and held against it; what else there is to say, it tells.
    """
    kwargs: Annotated[tuple[str, ...], option("NAME=VALUE ...")] = ()
    """What --module is called with, e.g. n_channels=3 n_classes=2. Python's literals; other words are strings."""
    out_index: Annotated[int | None, option("N")] = None
    """With --module: which of several answers is the network's; by default the first, 0."""
    out_key: Annotated[str | None, option("KEY")] = None
    """With --module: the key of the answer that is the network's."""
    size: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("HxW")] = ()
    """With --module: height and width (DxHxW) at which the code is read, where it cannot be followed for sizes in
    general. May be given several times; the network may then take these sizes only."""
    example: Annotated[Path | None, option("FILE.npz")] = None
    """What the network's own code answered: an input and its output, NCHW, by numpy.savez(FILE, input=..., output=...).
    The network is held against it, and without --module found by it."""
    names: Annotated[Path | None, option("FILE.csv")] = None
    """With --module: a table of which tensor of the file is which of the module's; unet inspect --draft writes one."""
    unchecked: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take the options below on trust, where neither names nor code nor an example tell what is computed."""
    trust: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run the code that the file itself brings along: a module that was pickled whole, a TorchScript file."""
    nnunet_fold: Annotated[int | None, option("N")] = None
    """Of a model folder of nnU-Net, which fold; by default the first."""
    key: Annotated[str | None, option("KEY")] = None
    """Where in the file the network lies, if it holds several, e.g. ema."""
    skip_first: Annotated[bool | None, option("True|False")] = None
    """Whether its decoder concatenates [skip, upsampled] (True) or [upsampled, skip] (False)."""
    align_corners: Annotated[bool | None, option("True|False")] = None
    """The align_corners of its bilinear upsampling."""
    fit: Annotated[Fit | None, option("resize|pad")] = None
    """How an upsampled map gets the size of an odd skip connection."""
    output: Annotated[Output | None, option("sigmoid|softmax|logits")] = None
    """What its code makes of the logits."""
    norm_epsilon: Annotated[float | None, option("NUMBER")] = None
    """Its BatchNorm's eps, if it is not torch's 1e-5."""
    norm_momentum: Annotated[float | None, option("NUMBER")] = None
    """Its BatchNorm's momentum, if it is not torch's 0.1."""

    def hints(self, dialect: str | None) -> "Known":
        """The same, for the readers."""
        from conversion.code import Known, values_of
        from unet_core.checkpoints.reading import SEMANTICS

        given = {"kwargs": self.kwargs, "out-index": self.out_index is not None, "out-key": self.out_key is not None}
        given["names"] = self.names is not None
        idle = [f"--{name}" for name, value in given.items() if value and self.module is None]
        if idle or (self.out_index is not None and self.out_key is not None):
            raise UNetError(f"{' '.join(idle)}: is for --module" if idle else "--out-index and --out-key: give one")
        return Known(
            self.key,
            dialect,
            **{name: getattr(self, name) for name in SEMANTICS},
            module=self.module,
            kwargs=values_of(self.kwargs),
            out=self.out_key if self.out_index is None else self.out_index,
            sizes=tuple(map(parse_size, self.size)),
            example=self.example,
            unchecked=self.unchecked,
            trust=self.trust,
            nnunet_fold=self.nnunet_fold,
            names=self.names,
        )


def parse_size(size: str) -> tuple[int, ...]:
    """Height and width, of HxW; depth, height and width, of DxHxW."""
    if re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5}){1,2}", size) is None:
        raise UNetError(f"--size {size}: give height and width as HxW, for example 75x91")
    return tuple(map(int, size.split("x")))


def parse_bytes(size: str) -> int:
    """Of 500MB, 2GB and the like."""
    found = re.fullmatch(r"([1-9]\d{0,5})([KMG]B)", size)
    if found is None:
        raise UNetError(f"--shard-size {size}: give it as 500MB or 2GB")
    return int(found[1]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[found[2]]
