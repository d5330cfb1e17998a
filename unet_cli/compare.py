"""`unet compare`."""

import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unet_cli.options import ON_CPU, SourceOptions, option, parse_size
from unet_compare.limits import Effort
from unet_core.data.formats.reading import Pictures
from unet_core.data.masks import Masks


@dataclass(frozen=True, kw_only=True)
class Compare(SourceOptions):
    """Say where two networks part, layer by layer, how much, why, and whether it matters; write a page about it.

    A and B are checkpoints, or the folders of runs (their best networks), of the same framework or not. Without B, A is
    compared with its own conversion to the other framework.

    Exit code 1 where they are not the same network.

    Example: unet compare model.pt --data cells --out report
    """

    a: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="A")]]
    """The network whose float64 answers are the reference."""
    b: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="B")]] = None
    """The network to compare with it."""
    out: Annotated[Path, tyro.conf.arg(metavar="REPORT")]
    """The folder for report.html and report.json."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR")] = "synthetic"
    """A folder with images/ and masks/, matching by name; or what unet pack made of one; or synthetic, for the built-in
    pictures."""
    size: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("HxW")] = ()
    """Height and width of what is traced layer by layer, in pixels; by default an odd size. With --module, where the
    code is read as well; the first, of several."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the report in REPORT."""
    recheck: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read every picture and mask again, whatever is known of the data from an earlier start."""
    effort: Effort = field(default_factory=Effort)
    masks: Masks = field(default_factory=Masks)
    pictures: Pictures = field(default_factory=Pictures)

    relief: ClassVar[str] = f"give a smaller --size, fewer --pictures and --steps, or {ON_CPU}"

    @property
    def typed(self) -> str:
        """The command, as a shell takes it."""
        return shlex.join(["unet", "compare", *map(str, filter(None, (self.a, self.b))), *_options(self)])

    def run(self) -> int:
        """Compare, write, and print the verdict; 1 where the networks differ."""
        from unet_cli.tables import print_comparison, progress_bar
        from unet_compare.compare import compare
        from unet_compare.report import check_report, write_report
        from unet_core.data.opening import recheck

        check_report(self.out, force=self.force)
        if self.recheck:
            recheck(self.data)
        with progress_bar() as progress:
            found = compare(
                self.a,
                self.b,
                data=self.data,
                hints=self.hints(None),
                size=next(map(parse_size, self.size), None),
                effort=self.effort,
                masks=self.masks,
                pictures=self.pictures,
                progress=progress,
            )
            progress("drawing", 1.0)
            page = write_report(self.out, found, self.typed, force=self.force)
        print_comparison(found, page)
        return 0 if found.equal else 1


def _options(part: Compare | Effort | Masks | Pictures) -> Iterator[str]:
    """Those that are not as they would be anyway."""
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if isinstance(value, Effort | Masks | Pictures):
            yield from _options(value)
        elif item.name not in ("a", "b") and value != item.default:
            name = "--" + item.name.replace("_", "-")
            if item.name in ("force", "unchecked", "trust", "recheck", "skip_unlabelled"):
                yield name
            elif item.name == "size":
                yield from (word for size in value for word in (name, size))
            else:
                yield from (name, *map(str, value if isinstance(value, tuple) else (value,)))
