"""What the commands print for people."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from conversion.files import Conversion
from conversion.inspection import Inspection
from conversion.judgement import EVAL, FLOAT32_FACTOR, FLOAT64_BUDGETS, GRADIENTS, Check
from conversion.progress import Progress as Report
from conversion.proof import Proof


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A bar on the terminal's error stream, gone when the job is done; nothing where that is no terminal."""
    columns = (BarColumn(bar_width=30), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda text, done: bar.update(task, description=escape(text), completed=done)


def print_inspection(found: Inspection) -> None:
    """The table of `unet inspect`."""
    config = found.config
    table = _table(show_header=False)
    table.add_row("file", escape(found.path))
    table.add_row("kind", found.container)
    origin = "stored in the file" if found.config_stored else "read off the tensors' shapes"
    table.add_row("config", origin)
    table.add_row("  channels", f"{config.in_channels} in, {config.out_channels} out")
    table.add_row("  features", ", ".join(map(str, config.features)))
    table.add_row("  upsampling", f"bilinear, {'align_corners' if config.align_corners else 'half-pixel corners'}")
    table.add_row("  concatenation", "skip, upsampled" if config.skip_first else "upsampled, skip")
    table.add_row("  BatchNorm", f"epsilon {config.norm_epsilon:g}, momentum {config.norm_momentum:g}")
    table.add_row("tensors", f"{found.tensors}, {found.bytes / 1e6:.1f} MB")
    table.add_row("parameters", f"{found.parameters:,}")
    table.add_row("dtypes", ", ".join(f"{name} ({count})" for name, count in found.dtypes.items()))
    table.add_row("batches tracked", f"{found.batches_tracked:,}")
    table.add_row("sha256", "of every tensor, checked" if found.digests else "none stored")
    table.add_row("problems", "\n".join(map(escape, found.problems)) or "none found")
    _console().print(table)


def print_conversion(done: Conversion) -> None:
    """What `unet convert` wrote and proved."""
    if done.proof is not None:
        print_proof(done.proof)
    proven = "not verified" if done.proof is None else "verified"
    tensors = len(done.checkpoint.tensors)
    _console().print(f"{escape(str(done.src))} -> {escape(str(done.dst))}: {tensors} tensors, {proven}", soft_wrap=True)


def print_proof(proof: Proof) -> None:
    """The table of `unet verify`."""
    console = _console()
    for letter, side in (("A", proof.a), ("B", proof.b)):
        versions = ", ".join(f"{name} {version}" for name, version in side.versions.items())
        console.print(f"{letter}: {escape(side.name)}  ({versions}, {side.device})", soft_wrap=True)
    console.print(f"{proof.identical} of {proof.tensors} tensors are the same in every bit")
    if proof.checks:
        console.print(_checks(proof))
        largest = FLOAT64_BUDGETS[EVAL], FLOAT64_BUDGETS[GRADIENTS]
        wide = f"float64 {largest[0]:.0e}, gradients {largest[1]:.0e}"
        console.print(f"budgets: {wide}; float32 ratio {FLOAT32_FACTOR} (in brackets: not judged)\n", soft_wrap=True)
    console.print(f"[bold]{'SAME' if proof.equal else 'DIFFERENT'}[/bold]: {escape(proof.verdict)}", soft_wrap=True)


def _checks(proof: Proof) -> Table:
    table = _table()
    other = "JAX" if {proof.a.framework, proof.b.framework} == {"torch", "jax"} else "B"
    own = "torch" if other == "JAX" else "A"
    for heading in ("input", "quantity"):
        table.add_column(heading, no_wrap=True)
    for heading in ("float64\nB - A", f"float32\n{own}", f"\n{other}", "\nratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    rows: dict[tuple[str, str], dict[str, Check]] = {}
    for check in proof.checks:
        rows.setdefault((check.sample, check.quantity), {})[check.precision] = check
    last = ""
    for (sample, quantity), checks in rows.items():
        wide, narrow = checks.get("float64"), checks.get("float32")
        table.add_row(
            escape(sample) if sample != last else "",
            quantity,
            f"{wide.error:.1e}" if wide else "",
            *(_float32(narrow) if narrow else ["", "", ""]),
            "ok" if all(check.ok for check in checks.values()) else "DIFFERENT",
        )
        last = sample
    return table


def _float32(check: Check) -> list[str]:
    own = check.baseline or 0.0
    ratio = f"{check.error / own:.2f}" if own else "-"
    return [f"{own:.1e}", f"{check.error:.1e}", ratio if check.budget is not None else f"({ratio})"]


def _table(*, show_header: bool = True) -> Table:
    return Table(box=box.SIMPLE, show_header=show_header, pad_edge=False, padding=(0, 1, 0, 0))


def _console() -> Console:
    return Console(highlight=False)
