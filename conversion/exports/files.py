"""A network exported into one file, proven before that gets its name."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack, get_args

from conversion.backends.frameworks import importing
from conversion.code import Told, known_of
from conversion.exports.code import code_file
from conversion.exports.deployment import Answer, Source, read_source
from conversion.exports.programs import Program
from conversion.exports.proving import Reference, inputs_of, prove
from conversion.exports.stablehlo import PLATFORMS, USUAL
from conversion.proof.certificate import ONNX, STABLEHLO, certificate_path, weights_of
from conversion.proof.proof import Proof
from conversion.result import Conversion
from conversion.writing import Content, Job, Options, convert_by, unchanged
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.containers import SUFFIXES
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import CheckpointError, MissingFrameworkError, UNetError
from unet_core.files import atomic, check_target
from unet_core.paths import as_source, as_target, is_url
from unet_core.progress import Progress, silent
from unet_core.staging import at_hand

Format = Literal["onnx", "stablehlo", "flax", "torch"]

_SUFFIXES: dict[str, tuple[Format, ...]] = {
    ".onnx": ("onnx",),
    ".stablehlo": ("stablehlo",),
    ".py": ("flax", "torch"),
}
"""What a suffix may stand for; the first, where nothing else is said."""
_CODE = _SUFFIXES[".py"]


@dataclass(frozen=True)
class Request:
    """What is to be written."""

    to: Format
    answer: Answer = "network"
    size: tuple[int, ...] | None = None
    batch: int | None = None
    platforms: tuple[str, ...] | None = None

    def check(self) -> None:
        """Raise UNetError where it does not go together."""
        named = USUAL if self.platforms is None else self.platforms
        if not named or set(named) - set(PLATFORMS) or len(set(named)) < len(named):
            raise UNetError(f"--platforms {','.join(named)}: give some of {', '.join(PLATFORMS)}, each once")
        if self.answer not in get_args(Answer):
            raise UNetError(f"--answer {self.answer}: one of {', '.join(get_args(Answer))} is needed")
        if self.batch is not None and self.batch < 1:
            raise UNetError(f"--batch {self.batch}: give a whole number from 1 up")
        if self.to != "stablehlo" and (self.size or self.batch or self.platforms):
            told = "--size, --batch and --platforms"
            raise UNetError(f"{told}: are of StableHLO; {self.to} takes all that the network takes; leave them out")
        if self.to in _CODE and self.answer != "network":
            raise UNetError(f"--answer {self.answer}: code answers as the network does; leave it out")
        if self.to == "stablehlo" and self.size is None:
            raise UNetError("a StableHLO program is of one size: say --size HxW")

    def suit(self, source: Source) -> None:
        """Raise UNetError where it is none for this network."""
        if self.size is not None:
            try:
                source.graph.check_input(*self.size, source.graph.in_channels)
            except ValueError as error:
                raise UNetError(f"--size {'x'.join(map(str, self.size))}: {error}") from error


@dataclass(frozen=True)
class _Way:
    """How a format is written and run."""

    kind: str
    write: Callable[[Path], None]
    program: Callable[[Path], Program]


def export(
    src: str | Path,
    dst: str | Path,
    *,
    to: Format | None = None,
    answer: Answer = "network",
    size: Sequence[int] | None = None,
    batch: int | None = None,
    platforms: Sequence[str] | None = None,
    hints: Hints = NO_HINTS,
    force: bool = False,
    verify: bool = True,
    certificate: bool = True,
    progress: Progress = silent,
    **told: Unpack[Told],
) -> Conversion:
    """Write the network of `src` as a file of another tool, in float32, run it there, and compare.

    Args:
        src: any checkpoint that `conversion.convert` reads, or the folder of a run (its best network).
        dst: the new file: `.onnx`, `.stablehlo`, or `.py` for code, whose weights are written beside it.
        to: the format, where the suffix does not tell it; `.py` is Flax NNX, unless it is said to be torch.
        answer: what the file answers: what the network does when it is called; or its logits, its probabilities, or the
            class of every pixel, as `unet predict` makes them.
        size: StableHLO: height and width of the pictures, in pixels.
        batch: StableHLO: how many pictures at once; None: any number.
        platforms: StableHLO: where the program shall run: cpu, cuda, rocm, tpu; None: all but rocm.
        hints: what `src` does not tell.
        force: replace `dst` where it exists.
        verify: run the file by a tool that is not ours, and compare it with the network, before it gets its name.
        certificate: write what was proven as `DST.certificate.json`.
        progress: called before each stage with a few words and the fraction that is done.
        told: the network's own code and the like, see `conversion.code.Known`.

    Raises:
        UNetError: `src` cannot be read, or its network cannot be written so; nothing was written.
        DifferentError: the proof failed; nothing was written, and the error carries the proof.
        MissingFrameworkError: the format, or the proof, needs a package that is not installed.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> conversion.export("model.pt", "net.py", verify=False).dst.name
        'net.py'
    """
    src, dst = as_source(src), as_target(dst)
    shape = None if size is None else tuple(size)
    request = Request(_format(dst, to), answer, shape, batch, None if platforms is None else tuple(platforms))
    request.check()
    _require(request.to, verify=verify)
    options = Options(force, verify, certificate and verify, progress)
    hints = known_of(hints, **told)
    if is_url(src):  # before it is fetched
        check_target(dst, force=force, companion=certificate_path(dst))
    with at_hand(src), _beside(src, dst, request.to, force=force) as weights:
        return convert_by(lambda: _job(src, dst, request, weights, hints, options), src, dst, None, options)


@contextmanager
def _beside(src: Path, dst: Path, to: Format, *, force: bool) -> Iterator[Path | None]:
    """Where the weights of code are written; they get their name after it. None: they are within, or there already."""
    weights = weights_of(dst)
    here = not is_url(src) and not is_url(dst) and weights.exists() and src.exists()
    if to not in _CODE or weights == src or (here and weights.samefile(src)):
        yield None
        return
    with atomic(weights, force=force) as partial:
        yield partial


def _job(src: Path, dst: Path, request: Request, weights: Path | None, hints: Hints, options: Options) -> Job:
    """What was read, and how it is written and proven."""
    with unchanged(src, options.certificate) as sha256:
        source = read_source(src, hints)
    request.suit(source)
    way = _way(request, source, weights, src)
    kept = Content(source.checkpoint, source.opened.kind, sha256=sha256)
    written: list[Path] = []

    def read_back(partial: Path) -> Content:
        written.append(partial)
        return dataclasses.replace(kept, kind=way.kind)

    def proven(_: Content, progress: Progress) -> Proof:
        fixed = request.size if request.to == "stablehlo" else None
        batches = inputs_of(source.graph, source.checkpoint.config, fixed, request.batch)
        reference = Reference(source, request.answer, str(src))
        return prove(reference, way.program(written[0]), batches, str(dst), progress)

    return Job(kept, way.write, read_back, proven)


def _format(dst: Path, to: Format | None) -> Format:
    suffix = dst.suffix.lower()
    found = _SUFFIXES.get(suffix, ())
    if to is not None and to not in get_args(Format):
        raise UNetError(f"--to {to}: one of {', '.join(get_args(Format))} is needed")
    if suffix in SUFFIXES:
        raise CheckpointError(f"{dst}: its suffix is a checkpoint's, which unet convert writes; give another name")
    if to is not None and found and to not in found:
        raise UNetError(f"{dst}: its suffix says {' or '.join(found)}, --to {to}; leave one of them out")
    if to is None and not found:
        known = ", ".join(_SUFFIXES)
        raise CheckpointError(f"{dst}: its suffix, {suffix or 'none'}, is that of no format ({known}); or say --to")
    return to or found[0]


def _require(to: Format, *, verify: bool) -> None:
    """Find out before the work whether what writes, and what runs it, is installed."""
    with importing():
        if to == "onnx":
            import onnx  # noqa: F401
        elif to == "torch":
            import torch  # noqa: F401
        else:
            import flax  # noqa: F401
        if to == "stablehlo":
            import flatbuffers  # noqa: F401
    try:
        with importing():
            if to == "onnx" and verify:
                import onnxruntime  # noqa: F401
    except MissingFrameworkError as error:
        raise MissingFrameworkError(f"{error}; or export without the proof: --no-verify") from error


def _way(request: Request, source: Source, weights: Path | None, src: Path) -> _Way:
    if request.to in _CODE:
        from conversion.exports.code.flax_code import FLAX
        from conversion.exports.code.torch_code import TORCH

        language = FLAX if request.to == "flax" else TORCH

        def write(path: Path) -> None:
            code_file.write(path, source, weights_of(path).name if weights is not None else src.name, language)
            if weights is not None:
                safetensors_file.write(weights, source.checkpoint)

        with at_hand(src) as local:
            return _Way(language.kind, write, lambda path: code_file.Written(path, weights or local, language))
    if request.to == "onnx":
        from conversion.exports import onnx_file

        return _Way(ONNX, lambda path: onnx_file.write(path, source, request.answer), onnx_file.Written)
    from conversion.exports import stablehlo

    assert request.size is not None
    shape = stablehlo.Shape(request.size, request.batch, request.platforms or USUAL)

    def double(path: Path) -> None:
        stablehlo.write(path, source, request.answer, shape, double=True)

    return _Way(
        STABLEHLO,
        lambda path: stablehlo.write(path, source, request.answer, shape),
        lambda path: stablehlo.Written(path, None if request.answer == "classes" else double),
    )
