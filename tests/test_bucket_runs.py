"""Runs whose folder is in a bucket: what is there at any moment is enough to go on, and nobody changes it unseen."""

import contextlib
import json

import numpy as np
import pytest
from conftest import mostly_torch

from conversion.runs import read_run
from conversion.training import train
from unet_cli.main import main
from unet_core import objects
from unet_core.checkpoints.safetensors_file import read_tensors
from unet_core.errors import RunError, StorageError
from unet_core.paths import as_path
from unet_core.staging import COMMITTED, UNFINISHED, at_hand
from unet_core.training import lease, working_copy
from unet_core.training.history import read_history
from unet_core.training.lease import Lease, locks_in
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


def test_two_processes_do_not_train_in_one_folder(run, monkeypatch):
    monkeypatch.setattr(lease, "_is_dead", lambda _: False)
    monkeypatch.setattr(lease, "_BEAT", 0.05)
    monkeypatch.setattr(lease, "_LOOK", 0.2)
    objects.write(str(run / "config.json"), b"{}")
    with Lease(run) as first:
        with pytest.raises(RunError, match=f"{run}: another process trains here"), Lease(run):
            pass
        first.check()
    with Lease(run) as second:  # it was given back
        second.check()
    assert locks_in(run) == [2]


def test_the_lock_of_a_dead_process_is_taken_over_and_a_living_one_sees_it(run, monkeypatch):
    for name, seconds in (("_BEAT", 100), ("_LOOK", 0.05), ("_SILENCE", 0.2)):
        monkeypatch.setattr(lease, name, seconds)
    monkeypatch.setattr(lease, "_is_dead", lambda _: False)
    objects.write(str(run / "config.json"), b"{}")
    with Lease(run) as silent:
        with Lease(run) as other:
            other.check()
            with pytest.raises(RunError, match="another process trains here; this one writes nothing more"):
                silent.check()
        assert json.loads((run / ".lock.2").read_bytes())["released"]
    assert locks_in(run) == [2]


def test_a_run_that_is_never_begun_leaves_no_lock(run):
    with Lease(run):
        assert locks_in(run) == [1]
    assert objects.listed(str(run)) == {}


def test_of_two_that_take_over_one_wins(run):
    objects.write(str(run / ".lock.1"), b'{"released": true}')
    listed = locks_in(run)
    with Lease(run), pytest.MonkeyPatch.context() as patched:
        patched.setattr(lease, "locks_in", lambda _, seen=[listed]: seen.pop() if seen else locks_in(run))
        with pytest.raises(RunError, match="another process trains here"), Lease(run):
            pass


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(run, monkeypatch):
    with Lease(run) as held:
        content = json.loads((run / ".lock.1").read_bytes())
        assert not lease._is_dead(content)
        assert lease._is_dead({**content, "process": 2**22 + 1})
        assert not lease._is_dead({**content, "process": 2**22 + 1, "machine": "another"})
        held.check()
