"""The `unet` command: reads the arguments, calls, prints. Nothing heavy is imported before a command needs it."""

import contextlib
import io
import logging
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

import tyro

from unet_cli.bench import Bench
from unet_cli.commands import Convert, Inspect, Verify
from unet_cli.compare import Compare
from unet_cli.doctor import Completion, Doctor, versions
from unet_cli.export import Export
from unet_cli.messages import nowhere, printed
from unet_cli.pack import Pack
from unet_cli.predict import Eval, Predict
from unet_cli.push import Push
from unet_cli.study import Study
from unet_cli.train import Plot, Train
from unet_core.device_errors import of_device
from unet_core.errors import UNetError, of_system
from unet_core.installation import of_missing
from unet_core.paths import as_path

DESCRIPTION = """One UNet in PyTorch and in JAX, and the bridge between the two.

Exit codes: 0 done; 1 checked and found different; 2 bad input or usage.

unet --version tells the versions; unet doctor also what is missing, and whether the devices work."""

_BROKEN_PIPE = 128 + signal.SIGPIPE
"""What a shell says of a command that ended because nobody reads its output any more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    _keep_programs()
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax's and grain's notes to their own developers
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # each way of logging in that it has tried
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each try of a request
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.stdout, sys.stderr = sys.stdout or nowhere(), sys.stderr or nowhere()  # where the shell has closed them
    try:
        code = _ran(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except OSError as error:  # of the output: nobody reads it any more, or there is no space for it
        unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
        _silence()
        return _BROKEN_PIPE if unread else _fail(of_system(error))
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # as rich leaves then
            return _BROKEN_PIPE
        raise


def _ran(arguments: Sequence[str]) -> int:
    command: Command | int = 0
    try:
        with _ended_by_sigterm(), printed():
            command = _parse(arguments)
            return command if isinstance(command, int) else command.run()
    except KeyboardInterrupt:
        print("unet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        line = _line_of(error, command)
        if line is None:
            raise
        return _fail(line)


def _line_of(error: Exception, command: "Command | int") -> str | None:
    """What a person can do something about, as one line; None: an error of ours."""
    of_devices = of_device(error) if isinstance(command, int) else of_device(error, command.relief)
    if of_devices is not None:
        return of_devices
    if isinstance(error, UNetError):
        return str(error)
    if isinstance(error, OSError):
        return of_system(error)
    if isinstance(error, ModuleNotFoundError):
        return of_missing(error)
    return "not enough memory for this" if isinstance(error, MemoryError) else None


def _is_unread(stream: TextIO) -> bool:
    """Whether it is a pipe whose other end is closed."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # none of the system's
        return False
    asked = select.poll()
    asked.register(number, 0)
    return any(event & select.POLLERR for _, event in asked.poll(0))


def _silence() -> None:
    """Let what is still to be printed to a stream that fails go nowhere; Python's last flush would fail, too."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with nowhere() as silent, contextlib.suppress(io.UnsupportedOperation):
                os.dup2(silent.fileno(), stream.fileno())


Command = (
    Inspect
    | Convert
    | Export
    | Verify
    | Push
    | Compare
    | Study
    | Pack
    | Train
    | Predict
    | Eval
    | Plot
    | Bench
    | Doctor
    | Completion
)


def _parse(arguments: Sequence[str]) -> Command | int:
    """The command that the arguments ask for, or the exit code where they ask for none."""
    if list(arguments) == ["--version"]:
        print("\n".join(versions()))
        return 0
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages), _paths():
            command: Command = tyro.cli(
                Command,
                prog="unet",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
            )
            return command.completed(arguments[1:]) if isinstance(command, Train) else command
    except SystemExit as stop:
        if not stop.code:  # --help, and the like
            return 0
        return _fail(in_one_line(messages.getvalue()))


def _paths() -> tyro.constructors.ConstructorRegistry:
    """How tyro reads paths, which may be addresses such as gs://bucket/name."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda arguments: as_path(arguments[0]),
            is_instance=lambda value: isinstance(value, Path),
            str_from_instance=lambda path: [str(path)],
        )

    return registry


def _keep_programs() -> None:
    """Let JAX keep what it compiles for the next time, where there is a place for it; its own variable comes first."""
    home = os.path.expanduser("~/.cache")  # which stays as it is where there is no home
    folder = Path(os.environ.get("XDG_CACHE_HOME") or home) / "unet-twins"
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if folder.is_absolute() and os.access(nearest, os.W_OK | os.X_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))


def in_one_line(box: str) -> str:
    """What tyro frames in a box, as one line; its title only where the text does not begin like it."""
    top, _, rest = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]+|-{4,}", " ", box).partition("\n")
    title, *parts = [" ".join(part.split()) for part in (top, *re.split(r"\n\s*\n", rest))]
    parts = [*filter(None, parts)] or [title]
    if parts[0].lower().split()[:1] != title.lower().split()[:1]:
        parts[0] = f"{title}: {parts[0]}"
    text = ". ".join(short.rstrip(".") for part in parts if (short := _shortened(part)))
    return re.sub(r"^Value error: Error parsing __\S+?: ", "", text)


def _shortened(part: str) -> str:
    """What belongs on one line of a part of a message: of options that may have been meant, their names."""
    if part.startswith(("Got errors:", "Argument helptext:")):
        return ""
    if part.startswith("Perhaps you meant:"):
        names = dict.fromkeys(word for word in part.split() if word.startswith("--") and word != "--help")
        return f"Perhaps you meant {' or '.join(names)}" if names else ""
    return part


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, so that what is half written is removed."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    usual = threading.current_thread() is threading.main_thread()
    usual = usual and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if usual:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if usual:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(message: str) -> int:
    print(f"unet: {' '.join(message.split())}", file=sys.stderr)
    return 2
