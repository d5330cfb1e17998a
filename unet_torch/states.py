"""Training states of the PyTorch twin: `.pt` files as plain scripts write them. `unet_jax/states.py` is the twin."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from unet_core.errors import CheckpointError, RunError, first_line
from unet_core.files import atomic, reserve
from unet_torch.archive import check_archive


class States:
    """The latest states of a run, each written whole or not at all.

    A file is a dict of `model` (the `state_dict`), `optimizer` (`optimizer.state_dict()`), `average` (the weights'
    moving average, or None) and `step`.

    Args:
        folder: where they are.
        keep: how many; older ones are removed once a newer one is written.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.keep = folder, keep

    def __enter__(self) -> "States":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def steps(self) -> list[int]:
        """Of the states that are there, the earliest first."""
        return sorted(int(path.stem) for path in self.folder.glob("*.pt") if path.stem.isdecimal())

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a state; one of the same step is replaced.

        Raises:
            RunError: it cannot be written; the earlier ones are as they were.
        """
        try:
            with atomic(self._path(step), force=True) as partial:
                reserve(partial, _size(state))
                torch.save(state, partial)
        except (CheckpointError, RuntimeError) as error:  # torch's writer has errors of its own for a full disk
            raise RunError(f"{self._path(step)}: not saved: {first_line(error)}. Earlier states are sound") from error
        for old in self.steps()[: -self.keep]:
            self._path(old).unlink()

    def newest(self, take: Callable[[dict[str, Any]], None], tell: Callable[[str], None]) -> int:
        """Give the newest sound state to `take`; returns its step, 0 where there is none.

        Args:
            take: raises CheckpointError, or what torch raises, where the state is not of this training.
            tell: is told of every state that is damaged and passed over.

        Raises:
            RunError: there are states, and none is sound.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = self._path(step)
            try:
                check_archive(path)
                state = torch.load(path, map_location="cpu", weights_only=True)
                if state["step"] != step:
                    raise CheckpointError(f"{path}: is the state of step {state['step']}")
                take(state)
            except Exception as error:  # whatever torch meets in a damaged file
                tell(f"{path} is damaged and passed over: {first_line(error)}")
            else:
                return step
        if steps:
            raise RunError(f"{self.folder}: no state of {len(steps)} is sound; train into a new folder")
        return 0

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:06}.pt"


def _size(state: Any) -> int:
    """Bytes that a state takes on the disk, and some more."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size() + 1000
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return 10_000 + sum(map(_size, parts))
