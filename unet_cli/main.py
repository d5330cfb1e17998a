"""The `unet` command: reads the arguments, calls, prints. Nothing heavy is imported before a command needs it."""

import contextlib
import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import tyro

from unet_cli.bench import Bench
from unet_cli.commands import Convert, Inspect, Verify
from unet_cli.compare import Compare
from unet_cli.messages import printed
from unet_cli.predict import Eval, Predict
from unet_cli.study import Study
from unet_cli.train import Plot, Train
from unet_core.errors import UNetError, of_system

DESCRIPTION = """One UNet in PyTorch and in JAX, and the bridge between the two.

Exit codes: 0 done; 1 checked and found different; 2 bad input or usage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    _keep_programs()
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax's and grain's notes to their own developers
    try:
        with _ended_by_sigterm(), printed():
            command = _parse(sys.argv[1:] if arguments is None else arguments)
            return command if isinstance(command, int) else command.run()
    except UNetError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(of_system(error))
    except MemoryError:
        return _fail("not enough memory for this")
    except KeyboardInterrupt:
        print("unet: interrupted", file=sys.stderr)
        return 130


Command = Inspect | Convert | Verify | Compare | Study | Train | Predict | Eval | Plot | Bench


def _parse(arguments: Sequence[str]) -> Command | int:
    """The command that the arguments ask for, or the exit code where they ask for none."""
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            command: Command = tyro.cli(
                Command,
                prog="unet",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
            )
            return command.completed(arguments[1:]) if isinstance(command, Train) else command
    except SystemExit as stop:
        if stop.code == 0:  # --help
            return 0
        return _fail(in_one_line(messages.getvalue()))


def _keep_programs() -> None:
    """Let JAX keep what it compiles for the next time, where there is a place for it; its own variable comes first."""
    home = os.path.expanduser("~/.cache")  # which stays as it is where there is no home
    folder = Path(os.environ.get("XDG_CACHE_HOME") or home) / "unet-twins"
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if folder.is_absolute() and os.access(nearest, os.W_OK | os.X_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))


def in_one_line(box: str) -> str:
    """What tyro frames in a box, as one line."""
    words = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]+|-{4,}", " ", box).split()
    return " ".join(words)


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


if __name__ == "__main__":
    sys.exit(main())
