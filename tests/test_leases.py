"""Leases: one process has what it took, until it gives it back, is gone, or is silent; here and in a bucket."""

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from unet_core import leases, objects
from unet_core.errors import StorageError
from unet_core.leases import SILENCE, Lease, Leases
from unet_core.paths import as_path, write_new

fsspec = pytest.importorskip("fsspec")
ROOT = Path(__file__).parents[1]
ELSEWHERE = json.dumps({"owner": "x", "machine": "another", "process": 1, "host": "another"})


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """An empty folder, here or in a bucket; the emulator of gs:// does not know objects that must be new."""
    if request.param == "folder":
        return tmp_path
    return as_path(f"{request.getfixturevalue(f'{request.param}_bucket')}/{uuid.uuid4().hex}")


def test_what_is_taken_is_nobody_elses_and_given_back_at_once(place):
    taking = Leases(place)
    with taking.take("run") as mine:
        assert mine.holds
        assert taking.take("run") is None
        assert taking.take("run-2") is not None
    assert not json.loads(mine.file.read_text())["beats"]
    with taking.take("run") as mine:
        assert mine.file.name == "run.2"
        assert taking.numbers() == {"run": 2, "run-2": 1}


def test_of_many_that_ask_at_once_one_gets_it(place):
    found, barrier = [], threading.Barrier(8)

    def ask():
        barrier.wait()
        found.append(Leases(place).take("run"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one is not None for one in found) == 1


def test_one_that_was_taken_since_one_looked_holds(place):
    taking = Leases(place)
    numbers = taking.numbers()
    assert numbers == {}
    with taking.take("run"):
        assert taking.numbers() == {"run": 1}
        assert Leases(place).take("run", numbers=numbers) is None
    assert Leases(place).take("run", numbers={"run": 1}).file.name == "run.2"


@pytest.mark.parametrize(("made", "taken"), [(lambda content: content, True), (lambda _: ELSEWHERE.encode(), False)])
def test_an_answer_that_was_lost_is_no_other_process(place, monkeypatch, made, taken):
    """The file is there, and a second try finds it."""

    def twice(path, content):
        write_new(path, made(content))
        write_new(path, content)

    monkeypatch.setattr(leases, "write_new", twice)
    assert (Leases(place).take("run") is not None) == taken


def test_a_process_of_this_machine_that_has_ended_is_replaced_at_once(tmp_path):
    code = "import pathlib; from unet_core.leases import Leases; Leases(pathlib.Path()).take('run')"
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    content = (tmp_path / "run.1").read_text()
    assert json.loads(content)["process"] != os.getpid()
    (tmp_path / "other.1").write_text(content.replace('"machine": "', '"machine": "another '))
    assert Leases(tmp_path).take("run") is not None
    assert Leases(tmp_path).take("other") is None
    assert not (tmp_path / "run.1").exists()


@pytest.mark.parametrize("text", [ELSEWHERE, "", '{"host": ', "[]", '{"released": 0, "process": -1}'])
def test_a_process_elsewhere_is_believed_as_long_as_it_gives_signs_of_life(place, monkeypatch, text):
    now = 1000.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    (place / "run.1").write_bytes(text.encode())
    looking = Leases(place)
    assert looking.take("run") is None
    now += SILENCE - 1
    (place / "run.1").write_bytes(f"{text} ".encode())
    assert looking.take("run") is None
    now += SILENCE - 1
    assert looking.take("run") is None
    assert Leases(place).take("run") is None  # who has not looked on does not judge
    now += 2
    assert looking.take("run") is not None


def test_who_was_taken_for_gone_is_told_and_leaves_the_other_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    lost = threading.Event()
    with Leases(tmp_path).take("run", lost.set) as mine:
        (tmp_path / "run.2").write_text(ELSEWHERE)
        assert lost.wait(10)
        assert not mine.holds
    assert (tmp_path / "run.2").read_text() == ELSEWHERE
    assert not json.loads(mine.file.read_text())["released"]


def test_a_store_that_does_not_answer_for_a_while_costs_nobody_a_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    failures, again, lost = [StorageError(5, "does not answer", "x")] * 3, threading.Event(), threading.Event()
    mine, holds = Leases(tmp_path).take("run", lost.set), Lease.holds

    def sometimes(lease):
        if failures:
            raise failures.pop()
        again.set()
        return holds.fget(lease)

    monkeypatch.setattr(Lease, "holds", property(sometimes))
    with mine:
        assert again.wait(10)
    assert json.loads(mine.file.read_text())["beats"] >= 4
    assert not lost.is_set()


@pytest.mark.parametrize(("other", "left"), [(None, set()), ("mine", {"run.1", "mine"})])
def test_what_was_not_begun_leaves_nothing_behind(place, other, left):
    with Leases(place).take("run") as mine:
        if other is not None:
            (place / other).write_bytes(b"")
        mine.withdraw()
    found = {path.name for path in place.iterdir()} if left else set(Leases(place).numbers())
    assert found == left
    assert Leases(place).take("run") is not None


# Any order of what several processes do


class Killed(BaseException):
    """The process is no more."""


class TwoHoldError(AssertionError):
    """Two hold one thing."""


def number_of(lease):
    return int(lease.file.suffix[1:])


class World:
    """Several processes that share a store and a clock. Within any request of one, others may do something, or it may
    be killed, or stopped for a while; requests fail, before or after they are done, and are asked again."""

    def __init__(self, seed, monkeypatch):
        self.rng, self.now, self.folder = random.Random(seed), 0.0, as_path(f"memory://leases/{seed}")
        self.looking = {process: Leases(self.folder) for process in range(3)}
        self.held, self.last, self.busy = {}, None, set()
        self.counts = dict.fromkeys(("taken", "taken over", "come back", "killed"), 0)
        self.store = fsspec.filesystem("memory")
        monkeypatch.setattr(objects, "asked", self.asked)
        monkeypatch.setattr(leases.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(leases, "_is_gone", lambda _: False)

    def asked(self, url, call):
        name = self.store._strip_protocol(url)
        self.others()
        fault = self.rng.random()
        if fault < 0.02:
            raise StorageError(5, "does not answer", url)
        if fault < 0.05:  # done, and nobody is told: once more
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                call(self.store, name)
            self.others()
        return call(self.store, name)

    def others(self):
        """What others do while one waits for an answer; at times it waits for long."""
        self.now += self.rng.choice((0, 0, 1))
        for _ in range(40 if self.rng.random() < 0.02 else self.rng.randrange(2)):
            self.step()
        if self.rng.random() < 0.002:
            raise Killed

    def step(self):
        """Something that one of those processes does that do not wait for an answer."""
        idle = sorted(self.looking.keys() - self.busy)
        if not idle:
            return
        process = self.rng.choice(idle)
        self.busy.add(process)
        self.now += self.rng.choice((0, 1, 5))
        begun = self.now
        try:
            if process in self.held:
                self.go_on(process, begun)
            elif (mine := self.looking[process].take("run")) is not None:
                self.begin(process, mine, begun)
        except StorageError:
            pass
        except Killed:
            self.counts["killed"] += 1
            self.held.pop(process, None)
            self.looking[process] = Leases(self.folder)
        finally:
            self.busy.discard(process)

    def begin(self, process, mine, begun):
        self.held[process] = mine, begun
        if self.last is not None and number_of(mine) < number_of(self.last):
            return  # replaced while it took it, as it will see
        silent = [self.now - since for lease, since in self.held.values() if lease is self.last]
        if any(seconds <= SILENCE for seconds in silent):
            raise TwoHoldError("one that gives signs of life is replaced")
        self.counts["taken"] += 1
        self.counts["taken over"] += len(silent)
        self.last = mine

    def go_on(self, process, begun):
        mine, _ = self.held[process]
        if self.rng.random() < 0.1:
            del self.held[process]
            if mine.holds:
                mine.file.write_bytes(mine.content(released=True))
        elif mine.renewed():
            self.held[process] = mine, begun
        elif not mine.holds:
            self.counts["come back"] += 1
            del self.held[process]
        if process in self.held and mine.holds and self.last is not mine:
            raise TwoHoldError("who was replaced does not see it")

    def run(self):
        for _ in range(40):
            self.step()
        return self.counts


def worlds(monkeypatch, count=10):
    total = {}
    for seed in range(count):
        with monkeypatch.context() as patched:
            for what, times in World(seed, patched).run().items():
                total[what] = total.get(what, 0) + times
    return total


def test_in_any_order_one_has_it_and_who_was_replaced_sees_it(monkeypatch):
    total = worlds(monkeypatch)
    assert min(total.values()) >= 5, total


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SILENCE", -1.0, "signs of life"),
        ("write_new", lambda path, content: path.write_bytes(content), "signs of life"),
    ],
)
def test_a_lease_that_is_none_would_be_seen(monkeypatch, name, value, message):
    """The control."""
    monkeypatch.setattr(leases, name, value)
    with pytest.raises(TwoHoldError, match=message):
        worlds(monkeypatch)


def test_an_owner_that_does_not_look_at_later_ones_would_be_seen(monkeypatch):
    """The control."""
    monkeypatch.setattr(Lease, "holds", property(lambda lease: lease.file.exists()))
    with pytest.raises(TwoHoldError, match=r"signs of life|does not see it"):
        worlds(monkeypatch)
