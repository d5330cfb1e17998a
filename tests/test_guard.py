"""Every kind of bad checkpoint: one clear line, exit code 2, nothing written, and neither time nor memory lost."""

import contextlib
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import few

from unet_cli.main import main

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from poison import CASES, Case
from safetensors.numpy import load_file

SECONDS, GROWTH = 10, 1_000_000  # kB, as ru_maxrss is on Linux
REPORTED = {35, 40}  # what `inspect` describes rather than refuses

CODE = """import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (12_000_000_000,) * 2)
from unet_cli.main import main
sys.exit(main(sys.argv[1:]))"""


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak() -> None:
    """Let a case be measured by itself; where the system cannot, by what it adds to all before it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def contents(folder: Path) -> dict[Path, bytes | None]:
    """All that is there, with the bytes of what is a plain file of moderate size."""
    found: dict[Path, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        plain = stat.S_ISREG(status.st_mode) and status.st_size < 1_000_000
        found[path] = path.read_bytes() if plain else None
    return found


@contextlib.contextmanager
def file_size_limit(room: int | None) -> Iterator[None]:
    """A limit on file sizes stands in for the full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft if room is None else room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def rescue(folder: Path) -> Iterator[None]:
    """Open and close every FIFO once the time is up: a reader that waits for one comes back and can be told off."""

    def release() -> None:
        for path in folder.rglob("*"):
            if stat.S_ISFIFO(path.lstat().st_mode):
                with contextlib.suppress(OSError):
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(SECONDS + 0.5, release)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def run(case: Case, arguments: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    if case.apart:
        command = [sys.executable, "-c", CODE, *arguments]
        # The process takes some seconds only to begin.
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=SECONDS + 10)
        return done.returncode, done.stdout, done.stderr
    capfd.readouterr()
    reset_peak()
    before, start = peak(), time.monotonic()
    with file_size_limit(case.room), rescue(folder):
        code = main(arguments)
    took, grown = time.monotonic() - start, peak() - before
    out, err = capfd.readouterr()
    assert took < SECONDS
    assert grown < GROWTH
    return code, out, err


def made(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The source and the target."""
    monkeypatch.chdir(folder)
    source, target = folder / case.file, folder / case.dst
    source.parent.mkdir(exist_ok=True)
    case.make(source)
    if case.occupy:
        case.occupy(target)
    if case.unreadable:  # root may read everything
        asked = os.access
        inside = f"{source}{os.sep}"
        monkeypatch.setattr(
            os,
            "access",
            lambda path, mode, **more: not f"{path}{os.sep}".startswith(inside) and asked(path, mode, **more),
        )
    return source, target


def assert_refused(code: int, out: str, err: str, named: str, says: str) -> None:
    assert code == 2, (out, err)
    assert out == ""
    assert err.startswith("unet: ")
    assert err.endswith("\n")
    # One line also to a terminal: no name from the file may move its cursor or fill its screen.
    assert err[:-1].isprintable()
    assert len(err) < 5000
    assert named in err
    assert says in err


REFUSED = [case for case in CASES if not case.accepted]
ACCEPTED = [case for case in CASES if case.accepted]


FIRST = {(case.row, case.file, case.accepted): case.name for case in reversed(CASES) if not case.apart}


def first(case: Case) -> bool:
    """Whether it is the first of its row with such a file: the quick tests try these."""
    return FIRST.get((case.row, case.file, case.accepted)) == case.name


def quickly(case: Case, command: str, number: int) -> bool:
    """Of both commands, which open a file by the same code, the quick tests try one in turns."""
    return first(case) and (
        case.about_the_target or case.row in REPORTED or command == ("convert", "inspect")[number % 2]
    )


COMMANDS = [
    pytest.param(
        case,
        command,
        id=f"{case.row} {case.name}, {command}",
        marks=() if quickly(case, command, number) else pytest.mark.slow,
    )
    for number, case in enumerate(REFUSED)
    for command in ("convert", "inspect")
    if command == "convert" or not (case.about_the_target or case.apart)
]


@pytest.mark.parametrize(("case", "command"), COMMANDS)
def test_refused(tmp_path, monkeypatch, capfd, case, command):
    source, target = made(case, tmp_path, monkeypatch)
    before = contents(tmp_path)
    options = [str(target), "--no-verify"] if command == "convert" else []
    code, out, err = run(case, [command, str(source), *options], tmp_path, capfd)
    assert contents(tmp_path) == before
    if command == "inspect" and case.row in REPORTED:
        assert (code, err) == (1, "")
        assert out
    else:
        # The writers know the target by its last name only.
        named = target.name if case.room else str(target if case.about_the_target else source)
        # Of a file that opens and is no network, `inspect` says what is in it.
        surveyed = command == "inspect" and "next: unet" in out
        assert_refused(code, "" if surveyed else out, err, named, case.says)


@pytest.mark.parametrize(
    "case",
    few(
        {f"{case.row} {case.name}": case for case in ACCEPTED},
        *(f"{case.row} {case.name}" for case in ACCEPTED if first(case)),
    ),
)
def test_accepted(tmp_path, monkeypatch, capfd, case):
    source, target = made(case, tmp_path, monkeypatch)
    before = contents(tmp_path)
    code, _, err = run(case, ["convert", str(source), str(target), "--no-verify"], tmp_path, capfd)
    assert code == 0, err
    found, expected = load_file(target), case.expected()
    assert {key: (value.dtype, value.shape) for key, value in found.items()} == {
        key: (value.dtype, value.shape) for key, value in expected.items()
    }
    assert [key for key in expected if found[key].tobytes() != expected[key].tobytes()] == []
    target.unlink()
    assert contents(tmp_path) == before


def test_every_row_has_a_case():
    assert {case.row for case in CASES} == set(range(1, 59))
    assert len({case.name for case in CASES}) == len(CASES)
