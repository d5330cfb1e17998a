"""The command starts itself again to ask for large pages of memory, once, and where that has an effect."""

import os
import sys

import pytest

from unet_cli import __main__ as command

ARGUMENTS = ["-m", "unet_cli", "--version"]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What was started again, on a system whose setting is in the file `enabled`."""
    found = []
    monkeypatch.setattr(command, "_PAGES", tmp_path / "enabled")
    monkeypatch.setattr(os, "execv", lambda program, arguments: found.append((program, arguments)))
    monkeypatch.setattr(sys, "orig_argv", ["python3", *ARGUMENTS])
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is as before after the test
    monkeypatch.delenv("GLIBC_TUNABLES")
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    return found


def test_the_same_arguments_are_started_again_in_large_pages(started):
    command.in_large_pages()
    assert started == [(sys.executable, [sys.executable, *ARGUMENTS])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


def test_it_starts_again_once(started):
    command.in_large_pages()
    command.in_large_pages()
    assert len(started) == 1


@pytest.mark.parametrize("given", ["glibc.malloc.hugetlb=0", ""])
def test_what_the_user_has_set_stays(started, monkeypatch, given):
    monkeypatch.setenv("GLIBC_TUNABLES", given)
    command.in_large_pages()
    assert not started
    assert os.environ["GLIBC_TUNABLES"] == given


@pytest.mark.parametrize("setting", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_nothing_starts_again_where_asking_has_no_effect(started, tmp_path, setting):
    if setting is None:  # no such system
        (tmp_path / "enabled").unlink()
    else:
        (tmp_path / "enabled").write_text(setting)
    command.in_large_pages()
    assert not started
    assert "GLIBC_TUNABLES" not in os.environ


def test_the_process_goes_on_where_nothing_can_be_started(started, monkeypatch):
    def refused(*_):
        raise PermissionError("not here")

    monkeypatch.setattr(os, "execv", refused)
    command.in_large_pages()
    assert not started
