"""What the packages log: the command prints it, once; of several processes, the first one alone has it."""

import io
import logging
import sys
from pathlib import Path

import pytest

from unet_cli.messages import PACKAGES, printed
from unet_core.errors import RunError
from unet_core.training.opening import Job, Machine, open_run
from unet_core.training.train_config import TrainConfig


def messages(package):
    logger = logging.getLogger(f"{package}.part")
    logger.info("%s has begun", package)
    logger.warning("100% of it is lost")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_command_prints_what_is_logged(package, capsys):
    with printed():
        messages(package)
    assert capsys.readouterr() == (f"{package} has begun\n100% of it is lost\n", "")
    messages(package)
    assert capsys.readouterr().out == "", "a library prints nothing"


def test_nobody_shows_it_a_second_time(caplog):
    """Orbax gives the root logger a handler."""
    with printed():
        messages("unet_core")
    assert caplog.messages == []
    messages("unet_core")
    assert caplog.messages == ["100% of it is lost"], "the control: all is as it was before"


def test_the_messages_of_others_are_not_printed(capsys):
    with printed():
        messages("absl")
    assert capsys.readouterr().out == ""


def test_whoever_read_along_and_left_ends_nothing(monkeypatch):
    class Left(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Left())
    with printed():
        messages("unet_core")
    assert sys.stdout.name == "/dev/null"
    sys.stdout.close()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_says_what_is_trained(rank, cells, tmp_path, caplog):
    job = Job("torch", TrainConfig(features=(3, 4), crop=16, batch=2, validation=2), str(cells))
    with open_run(tmp_path / "run", job):
        pass
    caplog.set_level("INFO", "unet_core")
    with open_run(tmp_path / "run", Job(job.backend, job.recipe, job.data, resume=True), machine=Machine(rank=rank)):
        pass
    assert [line.split(" to train on")[0] for line in caplog.messages] == ["4 pictures"] * (rank == 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_says_what_is_damaged(rank, tmp_path, caplog):
    pytest.importorskip("torch")
    from unet_torch.training.states import States

    states = States(tmp_path, 1, rank)
    Path(tmp_path / "000002.pt").write_bytes(b"damaged")
    with pytest.raises(RunError, match="no state of 1 is sound"):
        states.newest(lambda state: None)
    assert ["is damaged and passed over" in line for line in caplog.messages] == [True] * (rank == 0)
