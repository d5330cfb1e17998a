"""What `unet inspect` prints for people."""

from collections.abc import Iterable, Iterator

from rich.markup import escape
from rich.table import Table

from conversion.inspection import Inspection
from conversion.survey import Survey
from unet_cli.tables import new_console, new_table
from unet_core.checkpoints.dialects import dialect_of
from unet_core.checkpoints.soundness import CHOICES
from unet_core.errors import shown, sized, some
from unet_core.graph import Graph

_LAYERS = 150
"""Operations that are listed, at most; of more, those that have parameters."""


def print_inspection(found: Inspection) -> None:
    """The table of `unet inspect`."""
    table = new_table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _findings(found):
        table.add_row(name, escape(value))
    console = new_console()
    console.print(table)
    if found.layers:
        console.print(_layers(found))


def print_survey(found: Survey) -> None:
    """What `unet inspect` prints of a file that it does not read as a network, or is too large to be read whole."""
    table = new_table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _surveyed(found):
        table.add_row(name, escape(value))
    tree = new_table()
    tree.add_column("tensors", overflow="fold")
    for heading in ("how many", "numbers", "shape"):
        tree.add_column(heading, justify="right", no_wrap=True)
    for branch in found.tree:
        shape = "" if branch.shape is None else sized(branch.shape) or "a number"
        tree.add_row(escape("  " * branch.depth + branch.name), f"{branch.tensors:,}", f"{branch.numbers:,}", shape)
    console = new_console()
    console.print(table)
    console.print(tree)
    for command in found.next:
        console.print(f"next: {escape(shown(command))}", soft_wrap=True)


def _surveyed(found: Survey) -> Iterator[tuple[str, str]]:
    yield "file", f"{found.path}, {_size(found.file_bytes)}"
    yield "kind", found.container
    yield "holds", f"{found.tensors:,} tensor{'s' * (found.tensors != 1)} of {found.numbers:,} numbers"
    yield "networks", _lines(found.networks) or "none that is known by its names"
    if found.code:
        yield "its class", f"{some(found.code)}, which came with the tensors and was not run; --module names it"
    if found.inert:
        yield "left inert", f"{some(found.inert)} (never run)"
    if found.lost:
        yield "would be lost", _lines(map(shown, found.lost))
    yield "values", "not looked at: only the headers were read"


def _layers(found: Inspection) -> Table:
    """The operations of a network; of many, those that have parameters."""
    rows = [row for row in found.layers if len(found.layers) <= _LAYERS or row.parameters]
    table = new_table()
    table.add_column("layer", overflow="fold")
    table.add_column("operation", no_wrap=True)
    picture = sized(found.size)
    for heading in (f"answer to {picture}", "parameters", "GFLOP"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        work = f"{row.flop / 1e9:.3f}" if row.flop else ""
        shape = sized(row.shape[1:])
        table.add_row(
            escape(shown(row.name)), row.operation, shape, f"{row.parameters:,}" if row.parameters else "", work
        )
    parameters, flop = sum(row.parameters for row in found.layers), sum(row.flop for row in found.layers)
    left = len(found.layers) - len(rows)
    table.add_section()
    table.add_row(
        "all" + (f", {left} without parameters among them" if left else ""),
        "",
        "",
        f"{parameters:,}",
        f"{flop / 1e9:.3f}",
    )
    return table


def _findings(found: Inspection) -> Iterator[tuple[str, str]]:
    """The rows, each with its heading."""
    table = dialect_of(found.dialect)
    of = {"either": " (of either framework)", "JAX": " (JAX)"}
    yield "file", f"{found.path}, {_size(found.file_bytes)}"
    yield "kind", f"{found.container}{of.get(found.framework, '')}"
    if not isinstance(found.config, Graph):
        yield "dialect", f"{found.dialect}: {table.project if table else 'names that no table has'}"
    if found.origin != found.dialect:
        yield "came from", found.origin
    yield "sure", found.sure
    if found.key and found.key != "".join(found.wrappers).rstrip("."):
        yield "found under", shown(found.key)
    if found.wrappers:
        yield "wrappers", f"{some(found.wrappers)} (taken off)"
    if found.others:
        yield "other networks", f"{some(found.others)} (choose with --key)"
    if found.beside:
        yield "beside it", _lines(map(shown, found.beside))
    if found.code:
        yield "its class", f"{shown(found.code)}, which came with the tensors and was not run; --module names it"
    if found.inert:
        yield "left inert", f"{some(found.inert)} (never run)"
    yield "known by", str(found.evidence)
    read = "read from its code" if isinstance(found.config, Graph) else "read off names and shapes"
    yield "config", "stored in the file" if found.config_stored else read
    yield from ((f"  {name}", text) for name, text in _config(found))
    yield "tensors", f"{found.tensors}, {_size(found.bytes)}"
    yield "parameters", f"{found.parameters:,}"
    yield "dtypes", ", ".join(f"{name} ({count})" for name, count in found.dtypes.items())
    yield "batches tracked", f"{found.batches_tracked:,}"
    yield "sha256", "of every tensor, checked" if found.digests else "none stored"
    verdict = "none found" if not found.problems else "" if found.sound else "UNSOUND, no network runs on these values:"
    yield "problems", "\n".join(filter(None, (verdict, _lines(map(shown, found.problems)))))
    if found.sound:
        yield "next", found.next


def _config(found: Inspection) -> Iterator[tuple[str, str]]:
    config = found.config
    if isinstance(config, Graph):
        yield "network", config.title
        yield "channels", f"{config.in_channels} in, {config.out_channels} out"
        yield "sizes", f"{config.sizes}, in {config.dimensions} dimensions"
        yield "output", config.output
        return
    meanings = {
        "align_corners": "align_corners" if config.align_corners else "half-pixel corners",
        "skip_first": "[skip, upsampled]" if config.skip_first else "[upsampled, skip]",
        "output": config.output,
    }
    known = {name: "unknown" if name in found.unknown else text for name, text in meanings.items()}
    yield "channels", f"{config.in_channels} in, {config.out_channels} out"
    yield "features", _widths(config.features)
    if config.decoder_features:
        yield "decoder", _widths(config.decoder_features)
    if config.middle_features:
        yield "decoder's middle", _widths(config.middle_features)
    if config.upsampling == "bilinear":
        corners = known["align_corners"]
        yield "upsampling", f"bilinear, {'corners unknown' if corners == 'unknown' else corners}"
    else:
        channels = f", to {_widths(config.upsampled_features)} channels" if config.upsampled_features else ""
        yield "upsampling", f"transposed 2x2, stride 2{channels}"
    yield "odd sizes", "padded with zeros" if config.fit == "pad" else "resized to the skip connection"
    yield "concatenation", known["skip_first"]
    yield "convolutions", "3x3 with bias" if config.conv_bias else "3x3 without bias"
    yield "output", known["output"]
    yield "BatchNorm", f"epsilon {config.norm_epsilon:g}, momentum {config.norm_momentum:g}"
    if found.assumed:
        yield "assumed", f"{', '.join(found.assumed)}: nothing in the file tells"
    if found.overruled:
        yield "overruled", f"{', '.join(found.overruled)}: as you say"
    if found.unknown:
        options = " ".join(CHOICES[name] for name in found.unknown)
        yield "you must say", f"{options}: nothing in the file tells, look at the code it comes from"


def _widths(widths: tuple[int, ...]) -> str:
    return ", ".join(map(str, widths))


def _lines(findings: Iterable[str]) -> str:
    """One on each line; of many, the first."""
    found = list(findings)
    more = [f"... and {len(found) - 12} more"] if len(found) > 12 else []
    return "\n".join([*found[:12], *more])


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
