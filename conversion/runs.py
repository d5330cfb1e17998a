"""Training runs across the frameworks: a run's folder into one with which the other framework goes on."""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conversion.backends.backend import Framework, Runner, runner_of_checkpoint
from conversion.backends.frameworks import needed
from conversion.proof.certificate import RUN, certificate_path, certify, party, write_certificate
from conversion.proof.proof import Proof, side_of, verify_runners
from conversion.proof.updates import Continuation, compare, inputs_of, parted
from conversion.result import Conversion, DifferentError
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.safetensors_file import read
from unet_core.errors import CheckpointError, RunError
from unet_core.files import atomic, check_target, sha256_of
from unet_core.progress import Progress, silent
from unet_core.training.history import read_history
from unet_core.training.run import (
    BEST,
    BOARD,
    HISTORY,
    START,
    STATES,
    RunConfig,
    is_run,
    locked,
    read_run_config,
    start_network,
    versions_of,
    write_run_config,
)
from unet_core.training.state import TrainingState, difference


@dataclass(frozen=True)
class OpenRun:
    """A run as it was left, read."""

    path: Path
    settings: RunConfig
    start: Checkpoint
    """The network before the first step."""
    state: TrainingState
    """The newest sound one."""
    entries: list[dict[str, Any]]
    """The history up to that state."""
    ahead: bool = False
    """Whether the best network may be from after that state, by validations that will be made again."""

    @property
    def continuation(self) -> Continuation:
        """What goes on from here."""
        losses = [entry["validation"]["loss"] for entry in self.entries if "validation" in entry]
        of = self.settings
        return Continuation(of.backend, of.recipe, len(of.values), self.state, losses, of.digest)

    @property
    def runner(self) -> Runner:
        """Runs the network of the state, for the proof."""
        return runner_of_checkpoint(self.state.network, self.settings.backend, str(self.path))


def read_run(path: Path, tell: Callable[[str], None] = print) -> OpenRun:
    """Read a run's newest sound state and what led there; nothing is changed.

    Args:
        path: the run's folder.
        tell: is told of every state that is damaged and passed over.

    Raises:
        RunError: there is no run, or no sound state in it, or its history does not reach there; or it trains.
        MissingFrameworkError: its framework is not installed.
    """
    settings = read_run_config(path)
    states = needed(f"unet_{settings.backend}.training.states")
    with locked(path, shared=True):
        start = _start(path, settings)
        state = _newest(path, settings, start, states, tell)
        history = read_history(path / HISTORY)
        entries = [entry for entry in history if entry["step"] <= state.step]
    if [entry["step"] for entry in entries if "loss" in entry] != list(range(1, state.step + 1)):
        raise RunError(f"{path / HISTORY}: does not have the steps up to {state.step}; restore it")
    return OpenRun(path, settings, start, state, entries, _best(history) > _best(entries))


def convert_run(
    src: Path,
    dst: Path,
    *,
    to: Framework,
    force: bool = False,
    verify: bool = True,
    certificate: bool = False,
    progress: Progress = silent,
    tell: Callable[[str], None] = print,
) -> Conversion:
    """Write a run that goes on in the framework `to` where the one in `src` stands; see `conversion.convert`."""
    progress(f"reading {src.name}", 0.0)
    if read_run_config(src).backend == to:
        raise RunError(f"{src}: trains in {to} already; to have it twice, copy the folder")
    if Path(os.path.realpath(dst)).is_relative_to(os.path.realpath(src)):
        raise RunError(f"{dst}: is the run itself, or in its folder; name a new folder elsewhere")
    if force and dst.exists() and not is_run(dst):
        raise RunError(f"{dst}: is no run, and not replaced by one; name a new folder")
    place: dict[str, Any] = {"force": force, "replaces": is_run, "companion": certificate_path(dst)}
    check_target(dst, **place)
    for module in ("unet_torch.training.states", "unet_jax.training.states"):  # one reads, the other writes
        needed(module)
    with ExitStack() as stack:
        for path in (src, dst):
            if path.exists():
                stack.enter_context(locked(path, shared=True))
        run = read_run(src, tell)
        partial = stack.enter_context(atomic(dst, **place))
        progress(f"writing {dst.name}", 0.05)
        moved = _moved(run, partial, to, tell)
        progress(f"reading {dst.name} back", 0.1)
        state = needed(f"unet_{to}.training.states").read(partial / STATES, run.state.step, run.start, moved.recipe)
        changed = difference(run.state, state)
        if changed:  # a bug of ours, or a disk that does not keep what is written
            raise RunError(f"{dst}: not written: {len(changed)} arrays came back otherwise, {changed[0]} among them")
        proof = issued = None
        if verify:
            other = OpenRun(dst, moved, run.start, state, run.entries)
            proof = verify_runs(run, other, progress=lambda text, done: progress(text, 0.15 + 0.85 * done))
            if not proof.equal:
                raise DifferentError(f"{dst}: not written: {proof.verdict}", proof)
            if certificate:
                source = party(
                    src,
                    proof.a,
                    run.state.network,
                    kind=RUN,
                    sha256=sha256_of(state_path(src, run.settings, state.step)),
                    state=run.state,
                )
                destination = party(dst, proof.b, state.network, kind=RUN, sha256=None, state=state)
                issued = certify(proof, source, destination, when=datetime.now(UTC))
                issued = write_certificate(issued, partial, state_path(partial, moved, state.step))
    return Conversion(src, dst, run.state.network, proof, state, certificate=issued)


def state_path(run: Path, settings: RunConfig, step: int) -> Path:
    """Where the state of a step of a run is: a file, or a directory."""
    path: Path = needed(f"unet_{settings.backend}.training.states").path_of(run / STATES, step)
    return path


def state_at(path: Path, step: int) -> TrainingState:
    """The state of a step of the run in a folder.

    Raises:
        RunError: there is no run.
        CheckpointError: it is damaged, or not there.
        MissingFrameworkError: its framework is not installed.
    """
    settings = read_run_config(path)
    state: TrainingState = needed(f"unet_{settings.backend}.training.states").read(
        path / STATES, step, _start(path, settings), settings.recipe
    )
    return state


def _moved(run: OpenRun, folder: Path, to: Framework, tell: Callable[[str], None]) -> RunConfig:
    """Write a run's new folder, and say in a line what is left out; returns its settings."""
    old = run.settings
    recipe = dataclasses.replace(old.recipe, compile=False, remat=False)
    for name in ("compile", "remat"):
        if getattr(old.recipe, name):
            tell(f"--{name} is left out: it is for {old.backend} alone")
    moved = dataclasses.replace(
        old,
        backend=to,
        recipe=recipe,
        versions=versions_of(to),
        switches=(*old.switches, (run.state.step, old.backend)),
    )
    folder.mkdir()
    rate = next(entry["rate"] for entry in reversed(run.entries) if "rate" in entry)
    needed(f"unet_{to}.training.states").write(folder / STATES, run.state, recipe, rate)
    lines = "".join(json.dumps(entry) + "\n" for entry in run.entries)
    (folder / HISTORY).write_text(lines, encoding="utf-8")
    if run.ahead:
        tell(
            f"{run.path / BEST} may be from after step {run.state.step} and is left out; the next validation writes one"
        )
    for name in (START,) if run.ahead else (BEST, START):
        if (run.path / name).exists():
            shutil.copy(run.path / name, folder / name)
    if (run.path / BOARD).is_dir():
        shutil.copytree(run.path / BOARD, folder / BOARD)
    write_run_config(folder, moved)
    return moved


def verify_runs(a: OpenRun, b: OpenRun, *, progress: Progress = silent, **inputs: Any) -> Proof:
    """The proof that two runs stand at the same point and go on alike: their networks, and their next updates.

    Args:
        a, b: the runs.
        progress: called before each stage with a few words and the fraction that is done.
        inputs: of the networks, see `conversion.proof.proof.verify_runners`.
    """
    first, second = a.runner, b.runner
    departure = parted(a.continuation, b.continuation)
    if departure is not None:
        return Proof(side_of(first), side_of(second), 0, 0, (), departure, "trainings")
    proof = verify_runners(first, second, progress=lambda text, done: progress(text, 0.7 * done), **inputs)
    if not proof.equal:
        return proof
    progress("the next update of both", 0.7)
    checks, departure = compare(a.continuation, b.continuation, seed=inputs.get("seed", 0))
    ours, theirs = a.state.arrays(), b.state.arrays()
    same = len(ours) - len([name for name in difference(a.state, b.state) if name in ours])
    return dataclasses.replace(
        proof,
        inputs=proof.inputs + inputs_of(a.continuation, seed=proof.seed),
        tensors=len(ours.keys() | theirs.keys()),
        identical=same,
        checks=proof.checks + checks,
        departure=departure,
        subject="trainings",
    )


def _start(path: Path, settings: RunConfig) -> Checkpoint:
    """The network before the first step."""
    named = read(path / START) if (path / START).exists() else None
    return start_network(named, settings.recipe, settings.channels, len(settings.values))


def _best(entries: list[dict[str, Any]]) -> float:
    """The best mean IoU of its validations."""
    return max((entry["validation"]["mean_iou"] for entry in entries if "validation" in entry), default=-math.inf)


def _newest(
    path: Path, settings: RunConfig, start: Checkpoint, states: Any, tell: Callable[[str], None]
) -> TrainingState:
    folder = path / STATES
    steps = states.steps_in(folder)
    for step in reversed(steps):
        try:
            state: TrainingState = states.read(folder, step, start, settings.recipe)
        except CheckpointError as error:
            tell(f"{states.path_of(folder, step)} is damaged and passed over: {error}")
        else:
            return state
    why = f"no state of {len(steps)} is sound" if steps else "has no saved state yet; train until the first one"
    raise RunError(f"{path}: {why}")
