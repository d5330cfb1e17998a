"""What is known of a data folder spares reading it again, and is never believed where a file has changed."""

import logging
import os
import shutil
import time

import numpy as np
import pytest
from conftest import few
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from unet_core.errors import DataError, UNetError

pytest.importorskip("PIL")

from PIL import Image

from unet_core.data import folder as opening
from unet_core.data import index, listing
from unet_core.data.folder import open_folder
from unet_core.data.masks import Masks

RED, GREEN, BLACK = (200, 0, 0), (0, 200, 0), (0, 0, 0)
TICK = 0.02
"""Seconds; the clock of a file system here ticks in less."""


@pytest.fixture(autouse=True)
def settled(monkeypatch, tmp_path):
    """Files are relied on at once, and nothing is written into the real cache."""
    monkeypatch.setattr(listing, "SETTLED", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def looked(monkeypatch):
    """The names of the pairs that were decoded, and of the files that were hashed."""
    seen = []
    look, sha256 = opening.look_at, index.sha256_of
    monkeypatch.setattr(opening, "look_at", lambda files, name, *more: seen.append(name) or look(files, name, *more))
    monkeypatch.setattr(index, "sha256_of", lambda file: seen.append(file.name) or sha256(file))
    return seen


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path, compress_level=0)


def put(folder, name, value=255, height=4, channels=None):
    save(folder / "images" / f"{name}.png", np.full((height, 5, channels) if channels else (height, 5), 7))
    mask = np.zeros((height, 5), np.uint8)
    mask[0] = value
    save(folder / "masks" / f"{name}.png", mask)


@pytest.fixture
def folder(tmp_path):
    for name in ("1", "2", "10"):
        put(tmp_path / "cells", name)
    time.sleep(TICK)
    return tmp_path / "cells"


def shown(data):
    return {name: value for name, value in vars(data).items() if name != "index"}


def test_a_second_start_reads_nothing_and_finds_the_same(folder, looked):
    first = open_folder(folder)
    digest = first.digest()
    assert sorted(looked) == sorted(["1", "2", "10", *2 * ["1.png", "2.png", "10.png"]])
    looked.clear()
    again = open_folder(folder)
    assert (shown(again), again.digest(), looked) == (shown(first), digest, [])
    shutil.rmtree(folder / ".unet-index.npz", ignore_errors=True)
    (folder / ".unet-index.npz").unlink()
    without = open_folder(folder)
    assert (shown(without), without.digest()) == (shown(first), digest)
    assert len(looked) == 9, "the control: without the index all is read"


def change(folder):
    put(folder, "2", height=6)


def same_size_and_time(folder):
    file = folder / "masks" / "2.png"
    was = file.stat()
    save(file, np.array(Image.open(file))[::-1])
    assert file.stat().st_size == was.st_size
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def swapped(folder):
    one, other, spare = (folder / "masks" / f"{name}.png" for name in ("1", "2", "spare"))
    for a, b in ((one, spare), (other, one), (spare, other)):
        a.rename(b)


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (change, ["2"]),
        (same_size_and_time, ["2"]),
        (swapped, ["1", "2"]),
        (lambda folder: (folder / "masks" / "2.png").touch(), ["2"]),
        (lambda folder: put(folder, "3"), ["3"]),
        (lambda folder: [(folder / part / "2.png").unlink() for part in ("images", "masks")], []),
        (lambda folder: [(folder / p / "2.png").rename(folder / p / "4.png") for p in ("images", "masks")], ["4"]),
        (lambda folder: None, []),
    ],
    ids=["changed", "same-size-and-time", "swapped", "touched", "added", "gone", "renamed", "nothing"],
)
def test_what_changed_is_read_again_and_nothing_else(folder, looked, edit, names):
    open_folder(folder).digest()
    edit(folder)
    time.sleep(TICK)
    looked.clear()
    data = open_folder(folder)
    assert looked == names
    digest = data.digest()
    index.forget(folder)
    without = open_folder(folder)
    assert (shown(data), digest) == (shown(without), without.digest())


def test_a_file_that_changed_just_now_is_not_relied_on(folder, looked, monkeypatch):
    monkeypatch.setattr(listing, "SETTLED", 10**12)
    open_folder(folder).digest()
    assert not (folder / ".unet-index.npz").exists()
    looked.clear()
    open_folder(folder)
    assert looked == ["1", "2", "10"]


def test_what_has_a_problem_is_read_again_and_the_rest_is_not(folder, looked):
    (folder / "masks" / "2.png").write_bytes(b"no picture")
    time.sleep(TICK)
    for _ in range(2):
        looked.clear()
        with pytest.raises(DataError, match=r"masks/2\.png: is no PNG"):
            open_folder(folder)
    assert looked == ["2"]


def test_a_check_that_is_interrupted_goes_on_where_it_was(folder, looked):
    def interrupt(text, done):
        if done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_folder(folder, progress=interrupt)
    looked.clear()
    open_folder(folder)
    assert looked == ["10"]


def coloured(folder):
    for name, colours in (("1", [BLACK, RED]), ("2", [RED, GREEN])):
        save(folder / "images" / f"{name}.png", np.zeros((2, 2)))
        save(folder / "masks" / f"{name}.png", np.array([colours, colours]))
    time.sleep(TICK)


def test_a_resume_by_the_colours_that_were_found_reads_nothing(tmp_path, looked):
    coloured(tmp_path)
    values = open_folder(tmp_path).values
    looked.clear()
    assert open_folder(tmp_path, values=values, coloured=True).values == values
    assert looked == []
    with pytest.raises(DataError, match=r"masks/1\.png holds #000000 where masks of"):
        open_folder(tmp_path, values=values[1:], coloured=True, channels=3)
    assert looked == []


def test_masks_are_read_again_by_colours_of_which_nothing_is_known(folder, looked, tmp_path):
    table = tmp_path / "colors.csv"
    table.write_text("a,0,0,0\nb,255,255,255\n")
    open_folder(folder)
    by_colours = open_folder(folder, masks=Masks(colors=str(table)))
    assert by_colours.values == (0, 0xFFFFFF)
    looked.clear()
    assert open_folder(folder, masks=Masks(colors=str(table))).values == (0, 0xFFFFFF)
    assert open_folder(folder).values == (0, 255)
    assert looked == []


@pytest.mark.parametrize("place", range(0, 2000, 61))
def test_a_damaged_index_is_named_and_never_believed(folder, caplog, place):
    found = shown(open_folder(folder))
    file = folder / ".unet-index.npz"
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 0x55
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert shown(open_folder(folder)) == found


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"{}"])
def test_what_is_no_index_is_named_and_written_anew(folder, caplog, looked, content):
    (folder / ".unet-index.npz").write_bytes(content)
    open_folder(folder)
    assert ".unet-index.npz: is damaged" in caplog.text
    caplog.clear()
    looked.clear()
    open_folder(folder)
    assert (caplog.text, looked) == ("", [])


def test_columns_that_do_not_fit_together_are_named(folder, caplog):
    open_folder(folder)
    file = folder / ".unet-index.npz"
    with np.load(file) as found:
        columns = dict(found)
    for name in (name for name, column in columns.items() if column.size):
        np.savez(file, **{**columns, name: columns[name][:-1]})
        with caplog.at_level(logging.WARNING):
            assert len(open_folder(folder)) == 3
        assert "its index is damaged" in caplog.text or name == "version"
        caplog.clear()


def test_another_release_looks_again(folder, looked, monkeypatch):
    open_folder(folder).digest()
    monkeypatch.setattr(index, "_version", lambda: "another")
    looked.clear()
    open_folder(folder).digest()
    assert looked == ["1", "2", "10"], "and the digests still hold"


def test_what_cannot_be_written_beside_the_data_is_in_the_cache(folder, looked, tmp_path):
    (folder / ".unet-index.npz").mkdir()
    open_folder(folder)
    looked.clear()
    open_folder(folder)
    assert looked == []
    assert len(list((tmp_path / "cache/unet-twins/folders").iterdir())) == 1
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("")
    open_folder(folder)
    assert looked == ["1", "2", "10"]


def test_where_nothing_can_be_kept_that_is_said(folder, caplog, tmp_path):
    (folder / ".unet-index.npz").mkdir()
    (tmp_path / "cache").write_text("")
    assert len(open_folder(folder)) == 3
    assert caplog.text.count("what was found in it is not kept, and read again the next time") == 1


def test_nothing_is_left_but_the_index(folder):
    open_folder(folder).digest()
    assert sorted(file.name for file in folder.iterdir()) == [".unet-index.npz", "images", "masks"]


class Edited(RuleBasedStateMachine):
    """A folder that is edited and opened in all ways gives what it gives without an index."""

    names = st.sampled_from(["1", "2", "10", "a/1"])
    options = st.fixed_dictionaries(
        {},
        optional={
            "channels": st.sampled_from([1, 3]),
            "masks": st.builds(
                Masks,
                ignore=st.sampled_from([None, 0, 255]),
                classes=st.sampled_from([None, 2, 256]),
                skip_unlabelled=st.booleans(),
            ),
            "values": st.sampled_from([(0, 255), (0, 1)]),
            "coloured": st.booleans(),
        },
    )

    @initialize()
    def begin(self):
        self.folder = Edited.place / str(time.time_ns())
        for name in ("1", "2"):
            put(self.folder, name)

    def files(self):
        return sorted(file for file in self.folder.rglob("*.png") if file.is_file())

    @rule(name=names, value=st.sampled_from([255, 255, 1]), height=st.sampled_from([4, 6]), three=st.booleans())
    def write(self, name, value, height, three):
        put(self.folder, name, value, height, 3 if three else None)

    @rule(colours=st.sampled_from([(RED, RED), (GREEN, RED), (RED, (9, 9, 9))]))
    def colour(self, colours):
        """Every mask."""
        for number, file in enumerate(sorted((self.folder / "masks").rglob("*.png"))):
            mask = np.zeros((4, 5, 3))
            mask[0] = colours[number % 2]
            save(file, mask)

    @rule(data=st.data(), keep=st.booleans())
    def tamper(self, data, keep):
        """Write other pixels in as many bytes, with the time that the file had or another one."""
        file = data.draw(st.sampled_from(self.files() or [None]))
        if file is not None:
            was, array = file.stat(), np.array(Image.open(file))
            array.flat[-1] = 255 - array.flat[-1]
            save(file, array)
            if keep:
                os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))

    @rule(data=st.data(), way=st.sampled_from(["remove", "touch", "rename"]), name=names, both=st.booleans())
    def edit(self, data, way, name, both):
        """Of a pair, or of its picture or mask alone."""
        chosen = data.draw(st.sampled_from(self.files() or [None]))
        for file in self.files() if chosen is not None else ():
            if file != chosen and not (both and file.name == chosen.name and file.parent.name != chosen.parent.name):
                continue
            if way == "remove":
                file.unlink()
            elif way == "touch":
                file.touch()
            else:
                target = self.folder / file.relative_to(self.folder).parts[0] / f"{name}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                file.rename(target)

    @rule(how=options)
    def open_in_some_way(self, how):
        self.open(how)

    @rule()
    def open_when_settled(self):
        time.sleep(2 * TICK)
        self.open({})

    def open(self, how):
        found = self.found(how)
        place = self.folder / ".unet-index.npz"
        aside = place.with_name("aside")
        if place.exists():
            place.rename(aside)
        assert self.found(how) == found
        if aside.exists():
            aside.replace(place)

    def found(self, how):
        try:
            data = open_folder(self.folder, **how)
        except UNetError as error:
            return str(error)
        return shown(data), data.digest()


@pytest.fixture
def some_place(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "SETTLED", int(TICK * 1e9))
    Edited.place = tmp_path


@pytest.mark.usefixtures("some_place")
@pytest.mark.parametrize("examples", few([3, 60], 3))
def test_a_folder_that_is_edited_is_as_without_an_index(examples):
    run_state_machine_as_test(Edited, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None))
