"""The commands and their arguments. Each one's fields are its command line, each docstring its help."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from unet_cli.options import ON_CPU, SourceOptions, option, parse_bytes, parse_size
from unet_core.checkpoints.dialects import NAMES
from unet_core.errors import CheckpointError, UNetError, counted, printable

if TYPE_CHECKING:
    from conversion.proof.proof import Proof
    from conversion.survey import Survey

    Dialect = str
else:
    Dialect = Literal[NAMES]


@dataclass(frozen=True, kw_only=True)
class Inspect(SourceOptions):
    """Say what a checkpoint is, whose it is, how sure that is, and what looks wrong with it. Never runs code from it.

    Of a network that was read from code, or that --module names, also its operations: what each answers at a size
    (--size), its parameters, and the work that it makes.

    Of a file that opens and is no network that it knows, and of one of more than 1 GB, what is in it, by its headers
    alone, and what to type next.

    Exit code 1 where no network runs on its values (NaN, a negative variance).

    Example: unet inspect model.pt

    Example: unet inspect model.pt --module their/unet.py:UNet --kwargs n_channels=3 n_classes=2
    """

    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CKPT")]]
    """A file or folder of any kind that holds tensors."""
    dialect: Annotated[Dialect | None, option("NAME")] = None
    """Whose names the tensors have: own, milesial, milesial-2019, mateuszbuda or generic; by default this is
    recognised."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""
    draft: Annotated[Path | None, option("FILE.csv")] = None
    """With --module: write a table of which tensor of the file may be which of the module's, to look through; --names
    takes it."""

    relief: ClassVar[str] = f"give a smaller --size, or {ON_CPU}"

    def run(self) -> int:
        """Print what `conversion.inspect` finds; 1 where the checkpoint cannot be used."""
        from conversion.inspection import draft_names, inspect
        from conversion.survey import is_large, survey
        from unet_cli.inspection import print_inspection
        from unet_core.paths import as_source
        from unet_core.staging import at_hand

        hints = self.hints(self.dialect)
        if self.draft is not None:
            count, sure = draft_names(self.checkpoint, self.draft, hints=hints)
            of_module = counted(count, "tensor")
            print(f"{self.draft}: {of_module} of the module, {sure} of them found by shape in the only way")
            return 0
        if self.json:  # and nothing beside it
            logging.getLogger("unet_core").setLevel(logging.WARNING)
        path = as_source(self.checkpoint)
        with at_hand(path):  # so that it is fetched once
            if self.module is None and self.example is None and is_large(path):
                self._print_survey(survey(path, hints=hints))
                return 0
            try:
                found = inspect(path, hints=hints)
            except CheckpointError as error:
                with contextlib.suppress(UNetError):
                    self._print_survey(survey(path, hints=hints, problem=str(error)))
                raise
        if self.json:
            print(found.to_json())
        else:
            print_inspection(found)
        return 0 if found.sound else 1

    def _print_survey(self, found: "Survey") -> None:
        from unet_cli.inspection import print_survey

        if self.json:
            print(found.to_json())
        else:
            print_survey(found)


@dataclass(frozen=True, kw_only=True)
class Convert(SourceOptions):
    """Convert a checkpoint, prove that it is the same network, and only then give it its name.

    The kinds go by suffix: .pt, .pth, .safetensors, .npz, .dcp (a folder of torch.distributed.checkpoint); none, .orbax
    or a version (model.v2) is an Orbax directory; any other is refused. SRC may be of further kinds, which are told by
    their content, and come from any project: name its code (--module), or what that answered (--example), and the
    network is the one that was run. Without them, the names of the tensors may be those of a known project; its dialect
    then stays known, so that --dialect brings the network back into it. The last line says by what it is known.

    With --to, SRC is the folder of a training run: all of it is carried over to the other framework, in which unet
    train --resume goes on. Or SRC is what a PyTorch script saved (a .pt with model and optimizer) and DST an Orbax
    directory with the optimiser's moments next to the network, or the other way round.

    Example: unet convert model.pt model_jax --module their/unet.py:UNet --kwargs n_channels=3 n_classes=2

    Example: unet convert model_jax back.pt

    Example: unet convert run run_jax --to jax
    """

    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """The checkpoint to read."""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    """The checkpoint to write."""
    to: Annotated[Literal["jax", "torch"] | None, option("jax|torch")] = None
    """Carry a whole training over to this framework: SRC is the folder of a run, or a script's training file."""
    drop: tuple[Annotated[str, tyro.conf.arg(metavar="NAME")], ...] = ()
    """With --to, what cannot be carried and may be left behind, by the names that the refusal lists."""
    dialect: Annotated[Dialect | None, option("NAME")] = None
    """Whose names the tensors of a .pt or .safetensors DST get: own (the default), milesial, milesial-2019,
    mateuszbuda or generic. An Orbax directory has names of its own: where DST is one, whose names SRC has."""
    source_dialect: Annotated[Dialect | None, option("NAME")] = None
    """Whose names the tensors of SRC have; by default this is recognised."""
    shard_size: Annotated[str | None, option("SIZE")] = None
    """Write DST as a folder of .safetensors files of at most this size (500MB, 2GB) and their index."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace DST where it exists."""
    verify: bool = True
    """Run both networks and compare them before DST gets its name."""
    certificate: bool = True
    """Write what was proven as DST.certificate.json, which unet verify --certificate checks at any time."""

    relief: ClassVar[str] = f"convert without the proof (--no-verify), or {ON_CPU}"

    def run(self) -> int:
        """Convert, and print what was written and proven."""
        from conversion import DifferentError, convert
        from unet_cli.tables import print_conversion, print_proof, progress_bar
        from unet_core.checkpoints.containers import Container, container_of
        from unet_core.checkpoints.dialects import OWN

        named = self.shard_size is not None or container_of(self.dst) is not Container.ORBAX
        hints = self.hints(self.source_dialect or (None if named else self.dialect))
        dialect = (self.dialect if named else None) or OWN.name
        try:
            with progress_bar() as progress:
                done = convert(
                    self.src,
                    self.dst,
                    to=self.to,
                    drop=self.drop,
                    hints=hints,
                    dialect=dialect,
                    force=self.force,
                    verify=self.verify,
                    certificate=self.certificate,
                    shard_size=None if self.shard_size is None else parse_bytes(self.shard_size),
                    progress=progress,
                )
        except DifferentError as error:
            print_proof(error.proof)
            print(error)
            return 1
        print_conversion(done)
        return 0


@dataclass(frozen=True, kw_only=True)
class Verify(SourceOptions):
    """Run two checkpoints on the same inputs and compare logits, gradients and running statistics.

    With --module, A is run by its own code, and B is judged by that.

    Of the folders of two training runs, the newest states; their next updates are compared as well: loss, gradients,
    moments, and parameters after it.

    With --certificate, no network runs: it says whether the two files are still those of which the certificate speaks,
    byte for byte, or at least hold the same network. They are looked for next to it, unless A and B say where they are.

    Exit code 1, and the first layer that departs, where they are not the same network or training; or where a file is
    not the one of the certificate, or gone.

    Example: unet verify model.pt model_jax --module their/unet.py:UNet --kwargs n_channels=3 n_classes=2

    Example: unet verify model.pt model_jax --size 75x91

    Example: unet verify --certificate model_jax.certificate.json
    """

    a: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="[A]", help_behavior_hint="")]] = None
    """The checkpoint whose float64 answers are the reference."""
    b: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="[B]", help_behavior_hint="")]] = None
    """The checkpoint to compare with it."""
    certificate: Annotated[Path | None, option("FILE")] = None
    """What unet convert wrote as DST.certificate.json; or a .safetensors file, which has it in its metadata."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --certificate, make the proof again too."""
    dialect: Annotated[Dialect | None, option("NAME")] = None
    """Whose names the tensors of A have; by default this is recognised. It and --key are on A; the other options on
    what nothing in a file tells go for B too, where it stores no config."""
    size: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("HxW")] = ()
    """Height and width of the inputs, in pixels; by default an odd and an even size. With --module, where the code is
    read as well; the first, of several."""
    image: tuple[Annotated[Path, tyro.conf.arg(metavar="IMAGE")], ...] = ()
    """Real images to use instead of a photograph."""
    seed: int = 0
    """Of the random inputs."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the report to this file too; one that exists is replaced if it ends in .json."""

    relief: ClassVar[str] = f"give a smaller --size, or {ON_CPU}"

    def run(self) -> int:
        """Print the proof, or what became of the files of a certificate; 1 where they are not the same."""
        from unet_core.files import atomic, check_target

        self._check()
        if self.json is not None:
            check_target(self.json, force=self.json.suffix == ".json")  # only an earlier report is replaced
        proof, code = self._proven() if self.certificate is None else self._confirmed(self.certificate)
        if self.json is not None and proof is not None:
            with atomic(self.json, force=True) as partial:
                partial.write_text(proof.to_json() + "\n", encoding="utf-8")
        return code

    @property
    def pixels(self) -> tuple[int, ...] | None:
        """Of the inputs."""
        return next(map(parse_size, self.size), None)

    def _check(self) -> None:
        """Refuse what does not go together."""
        if self.seed < 0:
            raise UNetError(f"--seed {self.seed}: give a whole number from 0 up")
        if self.certificate is None:
            if self.a is None or self.b is None:
                raise UNetError("verify takes A and B, the two checkpoints; or --certificate FILE")
            if self.again:
                raise UNetError("--again: is for --certificate")
            return
        if (self.a is None) != (self.b is None):
            raise UNetError("--certificate: name both files, A and B, or none of them")
        if self.seed:
            raise UNetError("--seed: is that of the certificate; leave it out")
        given = [f"--{name}" for name in ("size", "image", "json") if getattr(self, name)]
        if given and not self.again:
            raise UNetError(
                f"{' '.join(given)}: with --certificate, no network runs; say --again to make the proof anew"
            )

    def _proven(self) -> "tuple[Proof | None, int]":
        from conversion import verify
        from unet_cli.tables import print_proof, progress_bar

        with progress_bar() as progress:
            proof = verify(
                self.a,
                self.b,
                hints=self.hints(self.dialect),
                size=self.pixels,
                images=self.image,
                seed=self.seed,
                progress=progress,
            )
        print_proof(proof)
        return proof, 0 if proof.equal else 1

    def _confirmed(self, certificate: Path) -> "tuple[Proof | None, int]":
        from conversion import confirm
        from unet_cli.tables import print_confirmation, progress_bar

        with progress_bar() as progress:
            found = confirm(
                certificate,
                self.a,
                self.b,
                hints=self.hints(self.dialect),
                again=self.again,
                size=self.pixels,
                images=self.image,
                progress=progress,
            )
        print_confirmation(found)
        if found.damaged is not None:
            raise CheckpointError(printable(found.damaged.detail))
        return found.proof, 0 if found.confirmed else 1
