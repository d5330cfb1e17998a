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


@pytest.fixture(params=["file", "directory"])
def accompanied(request, tmp_path):
    """A target with its companion; and a function that writes what replaces both."""
    target = tmp_path / "a"
    target.mkdir() if request.param == "directory" else target.write_text("old")
    (tmp_path / "a.json").write_text("of the old")

    def replace():
        with atomic(target, force=True, replaces=lambda path: True, companion=tmp_path / "a.json") as partial:
            partial.mkdir() if request.param == "directory" else partial.write_text("new")
            (partial / "new").touch() if request.param == "directory" else None
            partial.with_name("a.json").write_text("of the new")

    return target, replace


def is_new(target):
    return (target / "new").exists() if target.is_dir() else target.read_text() == "new"


def test_a_companion_appears_with_its_target(accompanied):
    target, replace = accompanied
    replace()
    assert is_new(target)
    assert target.with_name("a.json").read_text() == "of the new"
    assert sorted(path.name for path in target.parent.iterdir()) == ["a", "a.json"]


@pytest.mark.parametrize("failing", ["a", "a.json"])
def test_a_failing_rename_leaves_target_and_companion(accompanied, failing, monkeypatch):
    target, replace = accompanied
    monkeypatch.setattr("unet_core.files._exchange", lambda a, b: False)
    for name in ("rename", "replace"):
        original = getattr(os, name)

        def fail(src, dst, original=original):
            if os.fspath(dst) == os.fspath(target.with_name(failing)) and "replaced" not in os.path.basename(src):
                raise OSError(errno.ENOSPC, "No space left on device")
            original(src, dst)

        monkeypatch.setattr(os, name, fail)
    with pytest.raises(CheckpointError, match="the disk is full"):
        replace()
    assert not is_new(target)
    assert target.with_name("a.json").read_text() == "of the old"
    assert sorted(path.name for path in target.parent.iterdir()) == ["a", "a.json"]


def test_a_signal_when_all_is_done_undoes_nothing(accompanied, monkeypatch):
    import unet_core.files

    target, replace = accompanied
    original = unet_core.files._replace

    def interrupted(*given):
        original(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr("unet_core.files._replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace()
    assert is_new(target)
    assert target.with_name("a.json").read_text() == "of the new"


def test_a_companion_goes_with_what_it_spoke_of(tmp_path):
    for name in ("a", "a.json"):
        (tmp_path / name).write_text("old")
    with atomic(tmp_path / "a", force=True, companion=tmp_path / "a.json") as partial:
        partial.write_text("new")
    assert everything(tmp_path) == {"a": "new"}


def test_a_companion_is_not_replaced_without_force(tmp_path):
    (tmp_path / "a.json").write_text("mine")
    with (
        pytest.raises(CheckpointError, match=r"a\.json: exists already"),
        atomic(tmp_path / "a", companion=tmp_path / "a.json"),
    ):
        pass
    assert everything(tmp_path) == {"a.json": "mine"}
