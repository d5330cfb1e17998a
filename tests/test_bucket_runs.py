"""Runs whose folder is in a bucket: what is there at any moment is enough to go on, and nobody changes it unseen."""

import contextlib
import functools
import itertools
import json
import shutil
import types

import numpy as np
import pytest
from conftest import mostly_torch

from conversion.runs import read_run
from conversion.training import train
from unet_cli.main import main
from unet_core import leases, objects
from unet_core.checkpoints.safetensors_file import read_tensors
from unet_core.errors import RunError, StorageError
from unet_core.leases import Leases
from unet_core.paths import as_path
from unet_core.staging import COMMITTED, UNFINISHED, at_hand
from unet_core.training import lock, working_copy
from unet_core.training.history import read_history
from unet_core.training.lock import leased, locked
from unet_core.training.train_config import TrainConfig

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("grain")
pytest.importorskip("tensorboardX")

pytestmark = pytest.mark.usefixtures("one_thread_at_most")

RECIPE = TrainConfig(steps=6, batch=2, crop=16, features=(4, 8), save_every=2, validate_every=3, log_every=1, keep=2)


@pytest.fixture
def run():
    """The address of a run, in memory."""
    address = as_path("memory://runs/run")
    yield address
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm("/runs", recursive=True)


def trained(out, backend, cells, **more):
    return train(out, backend=backend, data=cells, recipe=RECIPE, **more)


def lines(path):
    return read_history(path / "history.jsonl")


def without_times(entries):
    return [{name: value for name, value in entry.items() if name != "mfu"} for entry in entries]


@mostly_torch
def test_a_run_in_a_bucket_is_that_here(run, backend, cells, tmp_path):
    here = tmp_path / "run"
    trained(here, backend, cells)
    trained(str(run), backend, cells)
    assert without_times(lines(run)) == without_times(lines(here))
    names = {path.name for path in here.iterdir()} - {".lock"}
    assert {path.name for path in run.iterdir()} - {".lock.1"} == names
    with at_hand(run / "best.safetensors") as best:
        kept, expected = read_tensors(best), read_tensors(here / "best.safetensors")
    assert kept.keys() == expected.keys()
    assert all(np.array_equal(kept[key], expected[key]) for key in expected)
    assert json.loads((run / "config.json").read_text()) == json.loads((here / "config.json").read_text())
    states = {name.split("/")[0] for name in objects.listed(str(run / "states"))}
    assert states == {path.name for path in (here / "states").iterdir()}
    assert not any(UNFINISHED in name for name in objects.listed(str(run)))


@mostly_torch
def test_a_run_in_a_bucket_goes_on_as_one_here(run, backend, cells, tmp_path):
    trained(tmp_path / "whole", backend, cells)
    trained(str(run), backend, cells, until=3)
    begun = lines(run)
    with pytest.raises(RunError, match=f"{run}: holds a run already"):
        trained(str(run), backend, cells)
    trained(str(run), backend, cells, resume=True)
    assert lines(run)[: len(begun)] == begun
    assert without_times(lines(run)) == without_times(lines(tmp_path / "whole"))


@mostly_torch
def test_what_is_said_of_a_run_speaks_of_its_address(run, backend, cells, capsys):
    command = ["train", "--backend", backend, "--data", str(cells), "--out", str(run), "--profile", "1"]
    given = ["--steps", "5", "--batch", "2", "--crop", "16", "--features", "4", "8"]
    assert main([*command, *given]) == 0
    assert f"the profile of updates 4 to 4 is in {run}/profile" in capsys.readouterr().out
    assert any(run.joinpath("profile").iterdir())


def test_a_run_is_read_beside_what_is_left_of_a_state(run, cells):
    pytest.importorskip("torch")
    trained(str(run), "torch", cells, until=4)
    objects.write(str(run / "states" / "6" / UNFINISHED), b"")
    objects.write(str(run / "states" / "6" / "state" / "x"), b"")
    assert read_run(run).state.step == 4
    trained(str(run), "torch", cells, resume=True)
    assert not any(name.startswith("states/6/") for name in objects.listed(str(run)))


@pytest.mark.slow
def test_a_state_whose_writing_was_cut_off_is_passed_over_and_removed(run, cells, caplog):
    pytest.importorskip("jax")
    trained(str(run), "jax", cells, until=4)
    objects.remove(str(run / "states" / "4" / COMMITTED))
    caplog.set_level("INFO")
    trained(str(run), "jax", cells, resume=True, until=5)
    assert "going on after step 2 of 6" in caplog.text
    assert {path.name for path in (run / "states").iterdir() if objects.listed(str(path))} == {"4", "5"}
    assert [entry["step"] for entry in lines(run) if "loss" in entry] == [1, 2, 3, 4, 5]


@mostly_torch
def test_the_history_is_there_before_the_state_that_relies_on_it(run, backend, cells, monkeypatch):
    puts, put = [], objects.put
    monkeypatch.setattr(objects, "put", lambda url, local: (puts.append(url.removeprefix(f"{run}/")), put(url, local)))
    trained(str(run), backend, cells, until=2)
    assert puts[0] == "config.json"
    state = min(number for number, name in enumerate(puts) if name.startswith("states/"))
    assert "history.jsonl" in puts[:state]


def test_a_store_that_fails_ends_the_training_with_one_line_and_loses_nothing(run, cells, monkeypatch):
    pytest.importorskip("torch")
    trained(str(run), "torch", cells, until=2)
    there = {name: (run / name).read_bytes() for name in objects.listed(str(run)) if not name.startswith(".")}
    with monkeypatch.context() as patched:
        patched.setattr(objects, "put", lambda url, _: (_ for _ in ()).throw(StorageError(5, "does not answer", url)))
        with pytest.raises(StorageError, match=rf"^{run}/.*: does not answer$"):
            trained(str(run), "torch", cells, resume=True)
    for name, content in there.items():
        assert (run / name).read_bytes() == content
    assert trained(str(run), "torch", cells, resume=True).step == RECIPE.steps


def test_errors_of_a_run_speak_of_its_address(run, cells):
    pytest.importorskip("torch")
    trained(str(run), "torch", cells, until=2)
    objects.write(str(run / "history.jsonl"), b"{}\n")
    with pytest.raises(RunError, match=f"^{run}/history.jsonl: line 1 is damaged"):
        trained(str(run), "torch", cells, resume=True)


def test_a_folder_of_something_else_is_left_alone(run, cells):
    pytest.importorskip("torch")
    objects.write(str(run / "mine.txt"), b"")
    with pytest.raises(RunError, match=f"{run}: exists and is no run"):
        trained(str(run), "torch", cells)
    assert set(objects.listed(str(run))) == {"mine.txt"}


class Killed(BaseException):
    """The process is no more."""


def written(folder, step, marks=(), earlier=None):
    """What a run has on its machine after a step: the history, and a state as Orbax writes one."""
    shutil.rmtree(folder / f"states/{earlier}", ignore_errors=True)
    for name in ("_CHECKPOINT_METADATA", "array", "state/array", *marks):
        file = folder / f"states/{step}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name} {step}")
    (folder / "config.json").write_text("{}")
    (folder / "history.jsonl").write_text("".join(f"{n}\n" for n in range(step)))
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*") if path.is_file()}


def until_killed(left, call, *given):
    if next(left) <= 0:
        raise Killed
    call(*given)


def after_each_kill(run, folder, monkeypatch, marks=()):
    """Of a run that puts its second state in the place of its first: what a resume fetches, if the process was killed
    after so many requests that write, with what was put before and what was to be put."""
    lease = types.SimpleNamespace(holds=True)
    for most in itertools.count():
        local, again = folder / f"here{most}", folder / f"again{most}"
        objects.asked(str(run), lambda system, name: system.rm(name, recursive=True) if system.exists(name) else None)
        copy = working_copy.BucketCopy(run, local, lease, divided=False)
        before = written(local, 2, marks)
        copy.publish()
        after, left = written(local, 4, marks, earlier=2), itertools.count(most, -1)
        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            for name in ("write", "put", "remove"):
                patched.setattr(objects, name, functools.partial(until_killed, left, getattr(objects, name)))
            copy.publish()
            return
        working_copy.BucketCopy(run, again, lease, divided=False).fetch()
        yield again, before, after


def is_sound(fetched, before, after):
    """Every state is whole, there is one, and the history goes as far."""
    for known in (before, after):
        step = max(path.parts[1] for path in known if path.parts[0] == "states")
        files = {name: text for name, text in known.items() if name.parts[:2] == ("states", step)}
        found = [name for name in files if (fetched / name).exists()]
        if found and any((fetched / name).read_text() != text for name, text in files.items() if name in found):
            return False
        if found and len(found) < len(files):
            return False
    states = [int(path.name) for path in (fetched / "states").glob("*")]
    return bool(states) and len((fetched / "history.jsonl").read_text().splitlines()) >= max(states)


@pytest.mark.parametrize("marks", [(), (f"state/{COMMITTED}", COMMITTED)], ids=["put", "of Orbax"])
def test_killed_at_any_request_a_run_goes_on_from_a_state_that_is_whole(marks, run, tmp_path, monkeypatch):
    seen = set()
    for fetched, before, after in after_each_kill(run, tmp_path, monkeypatch, marks):
        assert is_sound(fetched, before, after), fetched
        seen.add(tuple(sorted(path.name for path in (fetched / "states").iterdir())))
        left = {name.split("/")[1] for name in objects.listed(str(run)) if name.startswith("states/")}
        assert left == {path.name for path in (fetched / "states").iterdir()}
    assert seen == {("2",), ("2", "4"), ("4",)}


def test_a_half_that_is_taken_for_whole_would_be_seen(run, tmp_path, monkeypatch):
    """The control."""
    monkeypatch.setattr(working_copy, "whole", lambda _, entries: dict(entries))
    monkeypatch.setattr(working_copy, "_mark", lambda name: name)
    assert not all(is_sound(*found) for found in after_each_kill(run, tmp_path, monkeypatch))


@pytest.mark.parametrize(("falls", "left"), [(True, {"2"}), (False, {"4"})])
def test_who_is_replaced_while_a_state_is_put_ends_none(run, tmp_path, monkeypatch, falls, left):
    lease, put = types.SimpleNamespace(holds=True), objects.put
    copy = working_copy.BucketCopy(run, tmp_path / "here", lease, divided=False)
    written(tmp_path / "here", 2)
    copy.publish()
    written(tmp_path / "here", 4, earlier=2)

    def replaced(url, local):
        put(url, local)
        lease.holds = not (falls and "states/4" in url)

    monkeypatch.setattr(objects, "put", replaced)
    with pytest.raises(RunError, match="writes nothing more") if falls else contextlib.nullcontext():
        copy.publish()
    working_copy.BucketCopy(run, tmp_path / "again", None, divided=False).fetch()
    assert {path.name for path in (tmp_path / "again/states").iterdir()} == left


def test_several_hosts_need_a_store_that_orbax_writes_to(run):
    with (
        pytest.raises(RunError, match="several hosts write their states to gs://"),
        working_copy.working_copy(run, writes=True, divided=True),
    ):
        pass


@pytest.mark.slow
def test_the_commands_take_a_run_in_a_bucket(run, cells, tmp_path, capsys):
    pytest.importorskip("torch")
    trained(str(run), "torch", cells)
    assert main(["eval", str(run), "--data", str(cells), "--only", "validation"]) == 0
    assert main(["predict", str(run), str(cells / "images"), "--out", f"{run.parent}/masks"]) == 0
    assert len(list((run.parent / "masks").iterdir())) == 6
    assert main(["plot", str(run)]) == 0
    assert (run / "history.png").is_file()
    assert main(["verify", str(run), str(run), "--size", "16x16"]) == 0
    assert main(["inspect", f"{run}/best.safetensors"]) == 0
    assert main(["train", "--out", str(run), "--resume", "--until", "6"]) == 0
    assert "/tmp/unet" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_is_carried_over_from_bucket_to_bucket(run, cells, small_proof):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    trained(str(run), "torch", cells, until=4)
    assert main(["convert", str(run), f"{run.parent}/moved", "--to", "jax"]) == 0
    assert lines(run.parent / "moved") == lines(run)
    assert main(["verify", "--certificate", f"{run.parent}/moved.certificate.json"]) == 0
    trained(f"{run.parent}/moved", "jax", cells, resume=True)
    assert main(["convert", str(run), f"{run.parent}/moved", "--to", "jax"]) == 2


def locks_in(run):
    return sorted(name for name in objects.listed(str(run)) if name.startswith("."))


@pytest.fixture
def quick(monkeypatch):
    """Times that a test can wait for; no process is known to have ended."""
    for module, name, seconds in (
        (leases, "BEAT", 0.05),
        (leases, "SILENCE", 5),
        (lock, "SILENCE", 5),
        (lock, "_LOOK", 0.2),
    ):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(leases, "_is_gone", lambda _: False)


@pytest.mark.usefixtures("quick")
def test_two_processes_do_not_train_in_one_folder(run):
    objects.write(str(run / "config.json"), b"{}")
    with leased(run) as first:
        for other in (leased(run), locked(run, shared=True)):
            with pytest.raises(RunError, match=f"{run}: another process trains here, on .*; wait for it"), other:
                pass
        assert first.holds
    with leased(run) as second:  # it was given back
        assert second.holds
    assert locks_in(run) == [".lock.2"]


@pytest.mark.usefixtures("quick")
def test_the_lock_of_a_dead_process_is_taken_over_and_a_living_one_sees_it(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(leases, "BEAT", 100)
    for module in (leases, lock):
        monkeypatch.setattr(module, "SILENCE", 0.5)
    caplog.set_level("INFO")
    objects.write(str(run / "config.json"), b"{}")
    with leased(run) as silent:
        copy = working_copy.BucketCopy(run, tmp_path, silent, divided=False)
        written(tmp_path, 2)
        copy.publish()
        before = set(objects.listed(str(run))) - {".lock.1"}
        with leased(run) as other:
            assert "waiting" in caplog.text
            assert other.holds
            written(tmp_path, 4, earlier=2)
            with pytest.raises(RunError, match="another process trains here; this one writes nothing more"):
                copy.publish()
        assert set(objects.listed(str(run))) - {".lock.2"} == before
        assert json.loads((run / ".lock.2").read_bytes())["released"]
    assert locks_in(run) == [".lock.2"]
    assert json.loads((run / ".lock.2").read_bytes())["owner"] == other._owner


def test_a_run_that_is_never_begun_leaves_no_lock(run):
    with leased(run):
        assert locks_in(run) == [".lock.1"]
    assert objects.listed(str(run)) == {}


def test_of_two_that_take_over_one_wins(run, monkeypatch):
    objects.write(str(run / ".lock.1"), b'{"released": true}')
    with leased(run), monkeypatch.context() as patched:
        objects.write(str(run / ".lock.1"), b'{"released": true}')
        patched.setattr(Leases, "numbers", lambda _: {".lock": 1})  # as it was a moment ago
        with pytest.raises(RunError, match="another process trains here"), leased(run):
            pass
