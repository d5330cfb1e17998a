"""What hosts of a TPU slice do with a bucket, by processes of this machine; and the page that says how."""

import os
import re
import shlex
import signal
import time
import uuid
from pathlib import Path

import pytest
from test_hosts import BOUND, LONG, Together, distance, on_one
from test_readme import THEIRS

from unet_cli.main import main
from unet_core.data.batches import Examples
from unet_core.data.opening import open_dataset
from unet_core.data.packing import pack
from unet_core.data.splitting import split
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.errors import RunError
from unet_core.paths import as_path
from unet_core.staging import at_hand, put
from unet_core.training import run as module
from unet_core.training.history import read_history
from unet_core.training.opening import Job, Machine, open_run
from unet_core.training.run import await_run
from unet_core.training.train_config import TrainConfig

pytest.importorskip("gcsfs")
PAGE = Path(__file__).parents[1] / "docs/tpu_vm.md"

COUNTED = """
import os
import sys
from unet_cli.main import main
from unet_core.data import shards

read = shards.Records.read


def told(self, number, name):
    os.write(1, f"record {number}\\n".encode())  # many threads read; a print of theirs is no single line
    return read(self, number, name)


shards.Records.read = told
sys.exit(main(sys.argv[1:]))
"""
"""The command, which says of each record of a packed set that it is read."""


@pytest.fixture
def place(gs_bucket):
    """An address that nothing is below."""
    return as_path(f"{gs_bucket}/{uuid.uuid4().hex}")


def steps_of(run):
    return [entry for entry in read_history(run / "history.jsonl") if "loss" in entry] if run.exists() else []


def records_of(together, index):
    return [int(number) for number in re.findall(r"^record (\d+)$", together.said[index].read_text(), re.MULTILINE)]


@pytest.mark.slow
def test_each_host_reads_its_part_of_a_packed_set_in_a_bucket(place, tmp_path):
    """An epoch in batches of two on two hosts, and a validation: every record is read once, by one of them."""
    write_folder(Synthetic(count=12, size=32), tmp_path / "cells")
    assert main(["pack", str(tmp_path / "cells"), str(place / "cells")]) == 0
    given = ("--data", place / "cells", "--out", place / "run", "--backend", "jax", "--features", "4", "8")
    given += ("--crop", "16", "--batch", "2", "--steps", "5", "--validation", "2")
    with Together(tmp_path, 2, 1, *given, program=("-c", COUNTED)) as together:
        assert together.codes() == [0, 0], [together.text(index) for index in range(2)]
        read = [records_of(together, index) for index in range(2)]
    assert sorted(read[0] + read[1]) == list(range(12))
    training, _ = split(open_dataset(str(place / "cells")), 2)
    order = Examples(training, size=16, augmentation=TrainConfig().augmentation, seed=0)
    for index in range(2):
        expected = {int(training.numbers[order.place(2 * step + index)[1]]) for step in range(5)}
        assert expected <= set(read[index])
        assert len(read[index]) == 6


@pytest.mark.slow
def test_hosts_that_are_preempted_go_on_on_as_many_as_there_are(place, cells, tmp_path):
    """Two hosts, one bucket, one packed set; SIGTERM to one of them; then one, then two that are killed, then two."""
    on_one("--data", cells, "--out", tmp_path / "undisturbed", *LONG)
    pack(cells, place / "cells")
    run, known = place / "run", {}
    given = ("--data", place / "cells", "--out", run, *LONG, "--resume")

    def on_two(until=None, end=None):
        """Train on two hosts, and do something to them once a step is there."""
        with Together(tmp_path, 2, 1, *given) as together:
            while end is not None and len(steps_of(run)) < until:
                assert together.hosts[0].poll() is None, together.text(0)
                time.sleep(0.2)
            for host in together.hosts[1:] if end == signal.SIGTERM else together.hosts if end else ():
                host.send_signal(end)
            codes = together.codes()
            for entry in steps_of(run):
                assert known.setdefault(entry["step"], entry) == pytest.approx(entry, rel=BOUND)
            return codes, together.text(0)

    codes, said = on_two(6, signal.SIGTERM)
    assert codes == [0, 0], said
    made = len(steps_of(run))
    assert 6 <= made < 60
    assert f"stopped by SIGTERM after step {made} of 60; the state is saved: go on with --resume" in said
    on_one(*given, "--until", made + 3)
    assert len(steps_of(run)) == made + 3
    assert on_two(made + 8, signal.SIGKILL)[0] == [-signal.SIGKILL] * 2
    codes, said = on_two()
    assert codes == [0, 0], said
    assert "going on after step" in said
    assert sorted(known) == list(range(1, 61))
    with at_hand(run) as local:
        assert distance(local, tmp_path / "undisturbed") < BOUND


def commands(page):
    """Every `unet` command of the page's blocks, in the order given; not what `pkill` ends."""
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        yield from re.findall(r"(?<![\w'-])unet (?:--version|[a-z]+[^\n\"'&|>]*)", block.replace("\\\n", " "))


@pytest.mark.slow
@pytest.mark.usefixtures("small_graph_proof", "one_thread")
def test_the_commands_of_the_page_run(place, tmp_path, monkeypatch, capsys):
    """In the order given, with a small RECIPE."""
    torch = pytest.importorskip("torch")
    from unet_core.objects import listed

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUCKET", str(place))
    monkeypatch.setenv("RECIPE", "--steps 4 --batch 2 --crop 16 --precision bfloat16")
    Path("their").mkdir()
    Path("their/unet.py").write_text(THEIRS)
    names: dict[str, type[torch.nn.Module]] = {}
    exec(THEIRS, names)
    torch.save(names["UNet"](3, 2).state_dict(), "theirs.pt")
    write_folder(Synthetic(count=6, size=32), "cells")
    put(Path("cells"), place / "cells")
    found = [shlex.split(os.path.expandvars(command)) for command in commands(PAGE.read_text())]
    done = [command[1] for command in found]
    ways = ["--version", "doctor", "pack", "convert", "inspect", "train", "plot", "train", "eval", "predict", "convert"]
    assert done == [*ways, "verify"]
    for command in found:
        allowed = (0, 1) if command[1] == "doctor" else (0,)  # which is told of the machine, too
        assert main(command[1:]) in allowed, shlex.join(command)
    said = capsys.readouterr().out
    assert "going on after step 4 of 4" in said
    assert {name.split("/")[0] for name in listed(str(place))} >= {"run", "masks", "start", "cells.packed"}
    names["UNet"](3, 2).load_state_dict(torch.load("trained.pt"))


def test_a_host_that_does_not_see_the_folder_of_the_run_says_so(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SEEN", 0)
    job = Job("jax", TrainConfig(features=(3, 4), crop=16, batch=2), str(cells))
    with (
        pytest.raises(RunError, match=f"{tmp_path}/run: the first process has made it, and here it is not; give"),
        open_run(tmp_path / "run", job, machine=Machine(rank=1)),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_a_host_waits_until_it_sees_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda _: (tmp_path / "config.json").write_text("{}"))
    await_run(tmp_path)
    assert (tmp_path / "config.json").exists()
