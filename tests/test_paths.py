"""Addresses where a path is asked for: what they are, and what reads and writes by them, on a store in memory."""

import contextlib
from pathlib import Path
from unittest.mock import Mock

import pytest

from unet_core import objects
from unet_core.errors import CheckpointError, MissingFrameworkError, StorageError
from unet_core.files import atomic, check_target, sha256_of
from unet_core.paths import URLPath, absolute, as_path, is_url, present
from unet_core.staging import COMMITTED, UNFINISHED, at_hand

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket():
    """An address that nothing is below, in memory."""
    address = as_path("memory://bucket")
    yield address
    with contextlib.suppress(FileNotFoundError):
        objects.asked(str(address), lambda system, name: system.rm(name, recursive=True))


@pytest.mark.parametrize("typed", ["a/b.pt", "/a/b", "./a", "..", "a:b", "gs:/a", "C:\\a", ""])
def test_paths_of_this_machine_stay_what_they_are(typed):
    path = as_path(typed)
    assert type(path) is type(Path())
    assert path == Path(typed)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("gs://b/run", "gs://b/run"),
        ("GS://b/Run/", "gs://b/Run"),
        ("s3://b/x y/#1?.pt", "s3://b/x y/#1?.pt"),
        ("memory://b", "memory://b"),
        ("https://host/a.safetensors", "https://host/a.safetensors"),
    ],
)
def test_an_address_stays_one_through_all_that_a_path_does(typed, text):
    path = as_path(typed)
    assert isinstance(path, URLPath)
    assert is_url(typed)
    assert str(path) == text
    assert str(path / "a" / "b.pt") == f"{text}/a/b.pt"
    assert (path / "a" / "b.pt").relative_to(path).as_posix() == "a/b.pt"
    assert str((path / "a").parent) == text
    assert str((path / "a.pt").with_name("c")) == f"{text}/c"
    assert str(path.resolve()) == str(absolute(path)) == text
    assert as_path(path) is path


def test_a_path_below_the_home_of_the_user_is_there(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert as_path("~/run") == Path("/home/me/run")
    assert as_path("./~/run") == Path("~/run")


def test_a_file_address_is_a_path_of_this_machine():
    assert as_path("file:///tmp/x.pt") == Path("/tmp/x.pt")
    assert not is_url("file:///tmp/x.pt")


@pytest.mark.parametrize("typed", ["gs://", "gs:///", "gs:///b/c", "gs://b/../c", "zip://a.pt::gs://b/c.zip"])
def test_what_is_no_address_of_an_object_is_refused(typed):
    with pytest.raises(StorageError, match="is no address of an object; give it as gs://bucket/name"):
        as_path(typed)


def test_an_address_is_asked_for_in_its_own_form():
    with pytest.raises(StorageError, match="give it as hf://owner/name"):
        as_path("hf://")


@pytest.mark.parametrize("call", [open, Path.stat, lambda path: path.write_text("x"), lambda path: path.touch()])
def test_an_address_is_never_taken_for_a_file_of_this_machine(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, StorageError)):
        call(as_path("memory://b/x"))
    assert not any(tmp_path.iterdir())


def test_an_unknown_kind_of_address_is_one_line():
    with pytest.raises(StorageError, match=r"^foo://b: no address that is known"):
        as_path("foo://b/x").exists()


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(fsspec.core, "url_to_fs", Mock(side_effect=ImportError("install s3fs")))
    objects._system_of.cache_clear()
    with pytest.raises(MissingFrameworkError, match=r"s3:// is not installed: pip install .*\[s3\]'"):
        as_path("s3://b/x").exists()


def test_what_is_there_is_asked_of_the_store(bucket):
    objects.write(str(bucket / "a" / "x"), b"12")
    objects.write(str(bucket / "ab"), b"3")
    assert (bucket / "a").is_dir()
    assert not (bucket / "a").is_file()
    assert (bucket / "a" / "x").is_file()
    assert present(bucket / "a")
    assert not present(bucket / "b")
    assert {path.name for path in bucket.iterdir()} == {"a", "ab"}
    assert {name: entry.size for name, entry in objects.listed(str(bucket / "a")).items()} == {"x": 2}
    assert {name: entry.size for name, entry in objects.listed(str(bucket / "ab")).items()} == {"": 1}
    assert objects.listed(str(bucket / "b")) == {}


def test_a_new_version_of_an_object_is_told_from_the_old_one(bucket):
    objects.write(str(bucket / "a"), b"1")
    old = objects.listed(str(bucket))["a"].version
    assert objects.listed(str(bucket))["a"].version == old
    objects.write(str(bucket / "a"), b"2")
    assert objects.listed(str(bucket))["a"].version != old


def test_what_is_at_hand_is_a_copy_that_goes_away(bucket):
    objects.write(str(bucket / "d" / "x"), b"12")
    objects.write(str(bucket / "d" / "e" / "y"), b"3")
    with at_hand(bucket / "d") as local:
        assert (local / "x").read_bytes() == b"12"
        assert (local / "e" / "y").read_bytes() == b"3"
        assert local.name == "d"
        with at_hand(bucket / "d" / "e" / "y") as part:
            assert part == local / "e" / "y"
        assert part.exists()
    assert not local.parent.exists()


def test_an_error_speaks_of_the_address(bucket):
    objects.write(str(bucket / "x"), b"12")
    with pytest.raises(CheckpointError) as caught, at_hand(bucket / "x") as local:
        raise CheckpointError(f"{local}: is bad")
    assert str(caught.value) == f"{bucket}/x: is bad"


@pytest.mark.parametrize("name", ["a/../../b", "a//b", "./a", "a/.", "x" * 300, "a/b"])
def test_objects_that_no_file_can_have_the_name_of_are_refused(bucket, monkeypatch, name):
    entries = {"a": objects.Entry(0, ""), "good": objects.Entry(0, ""), name: objects.Entry(0, "")}
    monkeypatch.setattr(objects, "listed", lambda _: entries)
    with pytest.raises(CheckpointError, match="no file can have the name"), at_hand(bucket / "d"):
        pass


def test_what_is_not_there_is_one_line(bucket):
    with pytest.raises(CheckpointError, match="/x: no such object"), at_hand(bucket / "x"):
        pass


def test_a_file_is_written_as_one_object(bucket):
    with atomic(bucket / "x.pt") as partial:
        partial.write_bytes(b"12")
        assert not present(bucket / "x.pt")
    assert (bucket / "x.pt").read_bytes() == b"12"
    with pytest.raises(CheckpointError, match="exists already"), atomic(bucket / "x.pt"):
        pass
    with atomic(bucket / "x.pt", force=True) as partial:
        partial.write_bytes(b"3")
    assert (bucket / "x.pt").read_bytes() == b"3"


def test_what_fails_writes_nothing(bucket):
    objects.write(str(bucket / "x"), b"old")
    with pytest.raises(ZeroDivisionError), atomic(bucket / "x", force=True) as partial:
        partial.write_bytes(b"new")
        raise ZeroDivisionError
    assert (bucket / "x").read_bytes() == b"old"


def test_a_companion_is_written_after_what_it_speaks_of_and_an_old_one_goes(bucket):
    with atomic(bucket / "x", companion=bucket / "x.json") as partial:
        partial.write_bytes(b"1")
        partial.with_name("x.json").write_bytes(b"of 1")
    assert (bucket / "x.json").read_bytes() == b"of 1"
    with atomic(bucket / "x", force=True, companion=bucket / "x.json") as partial:
        partial.write_bytes(b"2")
    assert {path.name for path in bucket.iterdir()} == {"x"}


def _folder(partial, content):
    (partial / "state").mkdir(parents=True)
    (partial / "state" / "d").write_bytes(content)
    (partial / "_CHECKPOINT_METADATA").write_bytes(content)


def test_a_directory_is_written_with_its_mark_last(bucket, monkeypatch):
    puts, write, put = [], objects.write, objects.put
    monkeypatch.setattr(objects, "write", lambda url, *rest: (puts.append(url), write(url, *rest)))
    monkeypatch.setattr(objects, "put", lambda url, *rest: (puts.append(url), put(url, *rest)))
    with atomic(bucket / "d") as partial:
        _folder(partial, b"1")
    names = [url.removeprefix(f"{bucket}/d/") for url in puts]
    assert names[0] == UNFINISHED
    assert names[-1] == COMMITTED
    assert set(objects.listed(str(bucket / "d"))) == {"state/d", "_CHECKPOINT_METADATA", COMMITTED}


@pytest.mark.parametrize("last", range(5))
def test_a_directory_whose_writing_was_cut_off_is_not_taken_and_can_be_written_again(bucket, monkeypatch, last):
    left = [last]

    def cut(call):
        def cutting(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return call(*arguments)

        return cutting

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        for name in ("write", "put", "remove"):
            patched.setattr(objects, name, cut(getattr(objects, name)))
        with atomic(bucket / "d") as partial:
            _folder(partial, b"1")
    with pytest.raises(CheckpointError, match=r"cut off|no such object"), at_hand(bucket / "d"):
        pass
    with atomic(bucket / "d", force=True) as partial:
        _folder(partial, b"2")
    with at_hand(bucket / "d") as local:
        assert (local / "state" / "d").read_bytes() == b"2"


def test_a_directory_without_its_mark_is_not_taken(bucket):
    objects.write(str(bucket / "d" / "_CHECKPOINT_METADATA"), b"")
    objects.write(str(bucket / "d" / "state" / "x"), b"")
    with pytest.raises(CheckpointError, match=f"has no {COMMITTED}"), at_hand(bucket / "d"):
        pass
    objects.write(str(bucket / "d" / COMMITTED), b"")
    with at_hand(bucket / "d") as local:
        assert {path.name for path in local.iterdir()} == {"_CHECKPOINT_METADATA", "state"}


def test_a_directory_of_something_else_is_not_replaced(bucket):
    objects.write(str(bucket / "d" / "mine"), b"")
    with pytest.raises(CheckpointError, match="is a directory of something else"):
        check_target(bucket / "d", force=True, replaces=lambda _: False)


def test_the_digest_of_a_directory_is_that_of_the_same_one_here(bucket, tmp_path):
    _folder(tmp_path / "d", b"1")
    with atomic(bucket / "d") as partial:
        _folder(partial, b"1")
    assert sha256_of(bucket / "d") == sha256_of(tmp_path / "d")
    _folder(tmp_path / "e", b"2")
    assert sha256_of(bucket / "d") != sha256_of(tmp_path / "e")
