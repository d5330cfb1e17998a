"""What the TPU compiler says of this network, on a machine without a TPU.

    pip install -e '.[jax,tpu]' -c constraints.txt
    python -m benchmarks.tpu_aot [--topology v5e:2x4 v5e:8x16] [--mesh data=4,fsdp=2 space=8] [--program training]
                                 [--top 20] [--out FILE.json]
                                 [--module benchmarks.public_networks:wide --kwargs name=nnunet.PlainConvUNet]

Inference and the training step are compiled ahead of time, for chips that need not be there, by the compiler that TPUs
have; nothing runs. The step is the one of `unet train --backend jax`; batch, state and rows are split over the chips as
that splits them under the same `--mesh`. For inference every chip has all weights.

All figures are of one chip, also where several share the rows of an image:
- operations, and bytes moved: the compiler's count (`cost_analysis`). The bytes are what all operations read and write,
  with the padding of their layouts, in memory and in the chip's own fast memory; "of memory" leaves the latter out.
- bound: what the published rates allow at best, the longer of operations over rate and bytes of memory over bandwidth.
- estimate: what the compiler expects of each operation, summed up. Collectives, copies that run beside others, and the
  few operations of which it says nothing are not in it.
- a choice (`lax.cond`): the compiler's count takes the dearer branch, all else the one where the condition holds.
"""

import contextlib
import importlib
import io
import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

if not __package__:  # run as a file, whose folder has a conversion.py that would hide the package
    sys.path[0] = str(Path(__file__).parents[1])

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.tpu_program import Collective, Move, collectives, moves, parse, source_lines
from unet_cli.main import in_one_line
from unet_compare.speed.subject import opened
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.errors import ConfigError, MissingFrameworkError, UNetError, first_line, of_system
from unet_core.files import atomic, check_target
from unet_core.graph.canonical import Description
from unet_core.training.train_config import TrainConfig

Program = Literal["inference", "training"]
Variant = Literal["ours", "plain"]
Measure = Literal["bytes", "time"]
Rows = list[list[str]]

QUIET = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_LOG_DIR": "disabled",
}
"""With these libtpu looks for no TPU, does not complain of finding none, and writes no log, whatever the topology."""


class Chip(NamedTuple):
    """The published figures of a TPU."""

    rate: float
    """bfloat16 operations per second."""
    bandwidth: float
    """Of its memory, in bytes per second."""
    memory: float
    """Bytes."""
    clock: float
    """Cycles per second: the rate over what its matrix units do in a cycle."""
    pod: int
    """The most chips of a topology."""


CHIPS = {
    "v4": Chip(275e12, 1228e9, 32e9, 1.05e9, 4096),
    "v5e": Chip(197e12, 819e9, 16e9, 1.5e9, 256),
    "v5p": Chip(459e12, 2765e9, 95e9, 1.75e9, 8960),
    "v6e": Chip(918e12, 1640e9, 32e9, 1.75e9, 256),
}


Shape = dict[Any, int]
"""How many chips lie along each axis of a mesh, as `unet_jax.training.mesh.shape_of` gives it."""


class Topology(NamedTuple):
    """Chips of one kind and how they are connected."""

    name: str
    kind: str
    chips: int

    @classmethod
    def parsed(cls, name: str) -> "Topology":
        """Raises ConfigError where there is none of this name, as far as that is known without libtpu."""
        match = re.fullmatch(r"(\w+):(\d{1,4}(?:x\d{1,4}){1,2})", name)
        if match is None:
            raise ConfigError(f"--topology {name}: give the chip and its numbers along the axes, for example v5e:2x4")
        if match[1] not in CHIPS:
            raise ConfigError(f"--topology {name}: the chips known here are {', '.join(CHIPS)}")
        chips, most = math.prod(map(int, match[2].split("x"))), CHIPS[match[1]].pod
        if not 1 <= chips <= most:
            raise ConfigError(f"--topology {name}: {match[1]} comes in 1 to {most} chips")
        return cls(name, match[1], chips)

    def mesh(self, shape: Shape) -> Any:
        """Its chips in a mesh. Raises ConfigError where libtpu knows no such topology."""
        from jax.experimental import topologies

        from unet_jax.training.mesh import mesh_of

        options: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if self.chips == 1 else {}
        if self.kind == "v4":
            options["chip_config_name"] = "megacore"  # a chip's two cores as one device, as on v5p
        try:
            return mesh_of(shape, topologies.get_topology_desc(self.name, "tpu", **options).devices)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"--topology {self.name}: {first_line(error)}") from error


class Layout(NamedTuple):
    """Chips, and how the work is split over them."""

    topology: Topology
    shape: Shape

    @classmethod
    def parsed(cls, topology: Topology, sizes: str | None) -> "Layout":
        """Of the sizes that `--mesh` gives. Raises ConfigError where they do not make so many chips."""
        from unet_jax.training.mesh import shape_of

        return cls(topology, shape_of(sizes, topology.chips, topology.name))

    @property
    def groups(self) -> int:
        """Parts of a batch: the chips of one share the rows of its images."""
        return self.topology.chips // self.shape["space"]

    @property
    def name(self) -> str:
        """The topology, and the axes of more than one chip if they are others than `data`."""
        sizes = ",".join(f"{axis}={size}" for axis, size in self.shape.items() if size > 1)
        return self.topology.name if self.shape["data"] == self.topology.chips else f"{self.topology.name} {sizes}"

    @property
    def mesh(self) -> Any:
        """The chips themselves."""
        return self.topology.mesh(self.shape)


@dataclass(frozen=True)
class TpuAot:
    """Compile inference and training for TPUs that need not be there, and print what the compiler says of them.

    Exit code 1 where a program does not fit into the chip's memory.

    Example: python -m benchmarks.tpu_aot --topology v5e:2x4 v5e:8x16
    """

    topology: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CHIP:SHAPE ...")] = ("v5e:2x4",)
    """The chip (v4, v5e, v5p or v6e) and how many of them lie along each axis, for example v5e:1x1 or v5p:2x2x1."""
    mesh: Annotated[tuple[str, ...], tyro.conf.arg(metavar="AXIS=N,... ...")] = ()
    """How the chips share the work, as in `unet train --mesh`: data=4,fsdp=2 or data=2,space=4, for example; each on
    every topology. Left out: the batch is split over all chips."""
    program: Literal["both", "inference", "training"] = "both"
    """What to compile."""
    batch: int = 8
    """Images per chip; with space=4, of every four chips, which share them. In all, this times data times fsdp."""
    size: Annotated[str, tyro.conf.arg(metavar="HxW")] = "256x256"
    """Height and width of the images; training takes squares."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """What the network computes in; for bfloat16, weights, statistics and losses stay float32."""
    remat: tyro.conf.FlagCreatePairsOff[bool] = False
    """Training keeps only each block's input for the backward pass, and computes the rest again."""
    features: tuple[int, ...] = UNetConfig.features
    """Channels of each level of the network."""
    module: Annotated[str | None, tyro.conf.arg(metavar="FILE.py:NAME | PACKAGE:NAME")] = None
    """Another network, by its code: a torch class or function."""
    kwargs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """What the code is called with."""
    variant: Variant = "ours"
    """This project's network, or the same one written down plainly."""
    top: int = 0
    """List so many operations of each program."""
    by: Measure = "bytes"
    """Those that move the most bytes of memory, or those that the compiler expects to take the longest."""
    markdown: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the tables as Markdown."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json", help_behavior_hint="")] = None
    """Write the figures to this file too; one that exists is replaced if it ends in .json."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Write the compiled programs into this new folder too."""

    def run(self) -> int:
        """Compile, print and write; returns the exit code."""
        load("jax")
        subject, layouts = self._checked()
        load("libtpu")
        done = [self._figures(subject, *one) for one in itertools.product(layouts, self._programs)]
        for table in (time_table(done), memory_table(done)):
            (print_markdown if self.markdown else print_table)(*table)
        for note in self._notes(done):
            print(note)
        for figures in done:
            if self.top and figures.moves:
                print(f"\n{figures.title}, {len(figures.moves)} operations, those of the most {self.by} first:")
                print("\n".join(_line(move, figures.chip) for move in figures.ranked(self.top, self.by)))
        self._write(done)
        return 0 if all(figures.fits for figures in done) else 1

    @property
    def _programs(self) -> tuple[Program, ...]:
        return ("inference", "training") if self.program == "both" else (self.program,)

    @property
    def _shape(self) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.size)
        if match is None:
            raise ConfigError(f"--size {self.size}: give height and width as HxW, for example 256x256")
        return int(match[1]), int(match[2])

    def _recipe(self, layout: Layout) -> TrainConfig:
        batch = self.batch * layout.groups
        return TrainConfig(self.features, batch=batch, crop=self._shape[0], precision=self.precision, remat=self.remat)

    def _checked(self) -> tuple[Checkpoint, list[Layout]]:
        for name, value, least in (("batch", self.batch, 1), ("top", self.top, 0)):
            if value < least:
                raise ConfigError(f"--{name} {value}: give a whole number from {least} up")
        if not self.topology:
            raise ConfigError("--topology: give one or more, for example v5e:2x4")
        topologies = [Topology.parsed(name) for name in self.topology]
        layouts = [Layout.parsed(*one) for one in itertools.product(topologies, self.mesh or (None,))]
        height, width = self._shape
        if self.module is None:
            subject = Checkpoint(UNetConfig(features=self.features), {})
        else:
            subject = opened(None, self.module, self.kwargs)
        config = subject.config
        try:
            config.check_input(height, width, config.in_channels)
        except ValueError as error:
            raise ConfigError(f"--size {self.size}: {error}") from error
        if "training" in self._programs:
            if height != width:
                raise ConfigError(f"--size {self.size}: training takes squares; give NxN, or --program inference")
            for layout in layouts:
                self._recipe(layout).check(config, max(2, config.out_channels))
        for layout in layouts:
            self._check_rows(layout, config)
        if self.out is not None:
            check_target(self.out, force=self.out.suffix == ".json")
        if self.text is not None:
            check_target(self.text)
        return subject, layouts

    def _check_rows(self, layout: Layout, config: Description) -> None:
        from jax.sharding import AbstractMesh

        from unet_jax.training.mesh import check_rows

        try:
            check_rows(AbstractMesh(tuple(layout.shape.values()), tuple(layout.shape)), self._recipe(layout), config)
        except ConfigError as error:
            raise ConfigError(f"--size {self.size} on {layout.name}: {error}") from error

    def _figures(self, subject: Checkpoint, layout: Layout, program: Program) -> "Figures":
        mesh, recipe = layout.mesh, self._recipe(layout)
        model = network(self.variant, subject, recipe)
        started = time.monotonic()
        try:
            with Console(stderr=True).status(f"compiling {program} for {layout.name}, which takes minutes"):
                if program == "training":
                    made = training(model, recipe, mesh)
                else:
                    made = inference(model, (recipe.batch, *self._shape, subject.config.in_channels), mesh)
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise UNetError(f"{program} on {layout.name}: {first_line(error)}") from error
            return Figures(layout, program, self.batch, time.monotonic() - started, refused=first_line(error))
        return figures_of(made, layout, program, self.batch, time.monotonic() - started)

    def _notes(self, done: "Sequence[Figures]") -> Iterator[str]:
        yield f"Per chip, of {self.batch} images of {self.size} each, computed in {self.precision}."
        if any(figures.layout.shape["space"] > 1 for figures in done):
            yield "With space, so many chips share these images; images/s are a chip's part of them."
        yield "The bound goes by the chip's published rates; the estimate is the compiler's, without collectives."
        if self.precision == "float32":
            yield "A TPU multiplies float32 in one pass of bfloat16 unless told otherwise, so the rate is the same."
        yield from (f"{figures.title}: {figures.refused}" for figures in done if figures.refused)

    def _write(self, done: "Sequence[Figures]") -> None:
        if self.text is not None:
            with atomic(self.text) as folder:
                folder.mkdir()
                for figures in done:
                    name = f"{figures.program}-{re.sub('[:, ]', '-', figures.layout.name)}.txt"
                    (folder / name).write_text(figures.text, encoding="utf-8")
        if self.out is not None:
            settings = ("batch", "size", "precision", "remat", "features", "module", "kwargs", "variant")
            report = {
                "settings": {name: getattr(self, name) for name in settings},
                "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "libtpu")},
                "chips": {figures.layout.topology.kind: figures.chip._asdict() for figures in done},
                "programs": [figures.to_dict(self.top, self.by) for figures in done],
            }
            with atomic(self.out, force=True) as partial:
                partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Figures:
    """What the compiler says of one program, per chip."""

    layout: Layout
    program: Program
    batch: int
    """Images of a chip, or of several that share them."""
    compile_seconds: float
    operations: float = math.nan
    bytes_moved: float = math.nan
    """To and from memory and the chip's fast memory."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes of arguments, outputs, temporaries and code; and of outputs that lie where arguments lay, "aliased"."""
    collectives: Mapping[str, Collective] = field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    text: str = field(default="", repr=False)
    refused: str = ""
    """What the compiler says where the program needs more memory than there is."""

    @property
    def title(self) -> str:
        """Which program it is."""
        return f"{self.program} on {self.layout.name}"

    @property
    def chip(self) -> Chip:
        """What it is compiled for."""
        return CHIPS[self.layout.topology.kind]

    @property
    def images(self) -> float:
        """Per chip: a part of them where several chips share one."""
        return self.batch / self.layout.shape["space"]

    @property
    def memory_bytes(self) -> float:
        """To and from memory."""
        return sum(move.held for move in self.moves) if self.moves else math.nan

    @property
    def bounds(self) -> dict[str, float]:
        """The seconds that arithmetic and memory take at best."""
        return {
            "arithmetic": self.operations / self.chip.rate,
            "memory": self.memory_bytes / self.chip.bandwidth,
        }

    @property
    def bound_seconds(self) -> float:
        """The longer of the two."""
        return max(self.bounds.values())

    @property
    def bound_by(self) -> str:
        """Which one that is."""
        return max(self.bounds, key=self.bounds.__getitem__) if self.moves else "-"

    @property
    def estimated_seconds(self) -> float:
        """What the compiler expects of all operations together."""
        return sum(move.cycles for move in self.moves) / self.chip.clock or math.nan

    @property
    def needed(self) -> float:
        """Bytes of memory."""
        return sum(self.memory.values()) - 2 * self.memory["aliased"] if self.memory else math.nan

    @property
    def fits(self) -> bool:
        """Whether the chip has that much."""
        return self.needed <= self.chip.memory

    def ranked(self, count: int, by: Measure) -> list[Move]:
        """The operations that move the most bytes of memory, or take the longest."""
        return sorted(self.moves, key=lambda move: move.held if by == "bytes" else move.cycles, reverse=True)[:count]

    def to_dict(self, top: int, by: Measure) -> dict[str, Any]:
        """As plain JSON values; null where there is no figure."""
        found = {
            "topology": self.layout.topology.name,
            "chips": self.layout.topology.chips,
            "program": self.program,
            "compile_seconds": self.compile_seconds,
            "operations": self.operations,
            "bytes_moved": self.bytes_moved,
            "bytes_of_memory": self.memory_bytes,
            "bound_seconds": self.bound_seconds,
            "bound_by": self.bound_by,
            "images_per_second_at_bound": self.images / self.bound_seconds,
            "estimated_seconds": self.estimated_seconds,
            "images_per_second_estimated": self.images / self.estimated_seconds,
            "bytes_needed": self.needed,
        }
        return {
            **{name: None if value != value else value for name, value in found.items()},
            "mesh": self.layout.shape,
            "fits": self.fits,
            "refused": self.refused,
            "memory": dict(self.memory),
            "collectives": {kind: collective._asdict() for kind, collective in self.collectives.items()},
            "top": [move._asdict() for move in self.ranked(top, by)],
        }


def figures_of(made: Any, layout: Layout, program: Program, batch: int, seconds: float) -> Figures:
    """The figures of a compiled program."""
    cost, memory, text = made.cost_analysis(), made.memory_analysis(), made.as_text()
    parsed = parse(text)
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    return Figures(
        layout,
        program,
        batch,
        seconds,
        cost["flops"],
        cost["bytes accessed"],
        sizes,
        collectives(parsed),
        tuple(moves(parsed, source_lines(text))),
        text,
    )


def load(package: Literal["jax", "libtpu"]) -> None:
    """Import it, silently.

    Raises:
        MissingFrameworkError: it is not installed.
    """
    os.environ.update(QUIET)
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingFrameworkError(
            f"this needs {package}, which is not installed: pip install -e '.[jax,tpu]' -c constraints.txt"
        ) from error


def network(variant: Variant, checkpoint: Checkpoint, recipe: TrainConfig) -> Any:
    """The network in training mode, with shapes in place of arrays."""
    from unet_jax.training.step import abstract_model

    return abstract_model(checkpoint, replace(recipe, rewrites=variant == "ours"))


def training(model: Any, recipe: TrainConfig, mesh: Any) -> Any:
    """The compiled training step of an abstract model."""
    from unet_jax.training.mesh import of_state
    from unet_jax.training.step import abstract_state, compiled, updater

    state = abstract_state(model, recipe)
    placed_state, channels = placed(state, of_state(mesh, state)), model.config.in_channels
    return compiled(updater(recipe, model, mesh), placed_state, recipe, mesh, channels)


def inference(model: Any, shape: tuple[int, ...], mesh: Any) -> Any:
    """The compiled logits of an abstract model, for float32 images of this shape, NHWC."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from unet_jax.training.mesh import everywhere, of_batch

    split = NamedSharding(mesh, PartitionSpec(*of_batch(mesh).spec[1:]))
    forward, variables = forward_of(model)
    image = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=split)
    weights = placed(variables, jax.tree.map(lambda _: everywhere(mesh), variables))
    return jax.jit(forward, out_shardings=split).lower(weights, image).compile()


def forward_of(model: Any) -> tuple[Any, Any]:
    """A function of variables and images that answers logits in eval mode; and the variables, which may be shapes.

    It is frozen first, where it has rewrites, as it is to predict.
    """
    from flax import nnx

    from unet_jax import frozen

    if model.execution.rewrites:
        model = nnx.eval_shape(lambda model: frozen(model, "tpu"), model)
    else:
        model.eval()
    graphdef, *variables = nnx.split(model, nnx.Param, nnx.BatchStat)
    return lambda variables, image: nnx.merge(graphdef, *variables).logits(image), variables


def placed(shapes: Any, places: Any) -> Any:
    """Shapes of arrays that lie at these places, which are shardings in a tree of the same structure."""
    import jax

    return jax.tree.map(
        lambda like, place: jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=place), shapes, places
    )


def time_table(done: Sequence[Figures]) -> tuple[list[str], Rows]:
    """Headings and rows of what takes time."""
    headings = ["program", "chips", "TFLOP", "GB moved", "of memory", "bound, ms", "by", "images/s"]
    headings += ["estimate, ms", "images/s", "compiled in, s"]
    rows = [
        [
            figures.title,
            str(figures.layout.topology.chips),
            _figure(figures.operations / 1e12),
            _figure(figures.bytes_moved / 1e9),
            _figure(figures.memory_bytes / 1e9),
            _figure(1e3 * figures.bound_seconds),
            figures.bound_by,
            _figure(figures.images / figures.bound_seconds),
            _figure(1e3 * figures.estimated_seconds),
            _figure(figures.images / figures.estimated_seconds),
            f"{figures.compile_seconds:.0f}",
        ]
        for figures in done
    ]
    return headings, rows


def memory_table(done: Sequence[Figures]) -> tuple[list[str], Rows]:
    """Headings and rows of what takes memory, and of what crosses between chips."""
    parts = ("arguments", "outputs", "aliased", "temporaries", "code")
    rows = []
    for figures in done:
        crossing = (
            f"{one.operations} {kind}, {_figure(one.size / 1e6)} MB" for kind, one in figures.collectives.items()
        )
        rows.append(
            [
                figures.title,
                *(_figure(figures.memory.get(part, math.nan) / 1e6) for part in parts),
                _figure(figures.needed / 1e6),
                f"{'fits' if figures.fits else 'DOES NOT FIT'} {figures.chip.memory / 1e9:g} GB",
                "; ".join(crossing) or "none",
            ]
        )
    return ["memory, MB", *parts, "in all", "", "between chips"], rows


def print_table(headings: list[str], rows: Rows) -> None:
    """For a terminal."""
    table = Table()
    for heading in headings:
        words = heading in ("program", "by", "between chips", "memory, MB")
        table.add_column(heading, justify="left" if words else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_markdown(headings: list[str], rows: Rows) -> None:
    """For a page."""
    for row in (headings, ["---"] * len(headings), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def _figure(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _line(move: Move, chip: Chip) -> str:
    padding = f" ({1 - move.size / move.held:.0%} padding)" if move.size < 0.95 * move.held else ""
    times = f"{1e3 * move.held / chip.bandwidth:.2f} ms, estimate {1e3 * move.cycles / chip.clock:.2f} ms"
    parts = (f"{move.name}: {move.makes} <- {', '.join(move.reads) or 'little'}", move.what, move.where)
    return f"{move.held / 1e6:6.0f} MB{padding} = {times}: " + "; ".join(filter(None, parts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, and print; returns the exit code."""
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            command = tyro.cli(TpuAot, prog="python -m benchmarks.tpu_aot", args=arguments)
        return command.run()
    except SystemExit as stop:
        if stop.code == 0:  # --help
            return 0
        problem = in_one_line(messages.getvalue())
    except UNetError as error:
        problem = str(error)
    except OSError as error:
        problem = of_system(error)
    print(f"benchmark: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
