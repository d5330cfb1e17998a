"""Writing leaves the whole new file, or everything as it was."""

import errno
import os
import subprocess
import sys

import pytest

from unet_core import CheckpointError
from unet_core.files import atomic


def everything(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_appears_whole(tmp_path):
    with atomic(tmp_path / "a.pt") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a.pt").exists()
    assert everything(tmp_path) == {"a.pt": "new"}


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic(tmp_path / "a.pt") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_error_leaves_the_old_one(tmp_path, kind):
    target = tmp_path / "a"
    target.mkdir() if kind == "directory" else target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target, force=True, replaces=lambda path: True) as partial:
        partial.mkdir()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert target.is_dir() == (kind == "directory")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(CheckpointError, match=r"a\.pt: not written: the disk is full"),
        atomic(tmp_path / "a.pt") as partial,
    ):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert everything(tmp_path) == {}


def test_a_target_made_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(CheckpointError, match="exists already"), atomic(tmp_path / "a.pt") as partial:
        partial.write_text("ours")
        (tmp_path / "a.pt").write_text("theirs")
    assert everything(tmp_path) == {"a.pt": "theirs"}


def test_a_failing_rename_puts_the_old_directory_back(tmp_path, monkeypatch):
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").touch()
    rename = os.rename

    def failing(src, dst):
        if os.path.basename(os.fspath(src)) == "a" and os.fspath(dst) == os.fspath(target):
            raise OSError(errno.EIO, "Input/output error")
        rename(src, dst)

    monkeypatch.setattr(os, "rename", failing)
    monkeypatch.setattr("unet_core.files._exchange", lambda a, b: False)
    with (
        pytest.raises(CheckpointError, match="input/output error"),
        atomic(target, force=True, replaces=bool) as partial,
    ):
        partial.mkdir()
    assert [path.name for path in target.iterdir()] == ["old"]


@pytest.mark.parametrize("at_once", [True, False], ids=["exchange", "two renames"])
def test_a_directory_replaces_another(tmp_path, monkeypatch, at_once):
    if not at_once:
        monkeypatch.setattr("unet_core.files._exchange", lambda a, b: False)
    (tmp_path / "a").mkdir()
    with atomic(tmp_path / "a", force=True, replaces=lambda path: True) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]


def test_an_interrupt_between_two_renames_puts_the_old_directory_back(tmp_path, monkeypatch):
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").touch()
    rename, calls = os.rename, []

    def interrupted(src, dst):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(src, dst)

    monkeypatch.setattr(os, "rename", interrupted)
    monkeypatch.setattr("unet_core.files._exchange", lambda a, b: False)
    with pytest.raises(KeyboardInterrupt), atomic(target, force=True, replaces=lambda path: True) as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_everything_is_synced_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(os, "rename", lambda src, dst: (events.append("rename"), rename(src, dst))[1])
    with atomic(tmp_path / "a") as partial:
        partial.mkdir()
        (partial / "payload").write_text("x")
    before = [os.path.basename(event) for event in events[: events.index("rename")]]
    assert before == ["payload", "a"]
    assert events[-1] == str(tmp_path), "the folder that holds the new name"


def test_a_kill_in_mid_write_leaves_the_old_one(tmp_path):
    (tmp_path / "a.pt").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from unet_core.files import atomic\n"
        "with atomic(Path(sys.argv[1]), force=True) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.pt")], check=False)
    assert (tmp_path / "a.pt").read_text() == "old"


def test_a_relative_target_stays_where_it_was_meant(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    with atomic(Path("a.pt")) as partial:
        os.chdir("elsewhere")
        partial.write_text("x")
    assert (tmp_path / "a.pt").exists()
