"""Training runs across the frameworks: a run's folder into one with which the other framework goes on."""

import dataclasses
import json
import logging
import math
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from conversion.backends.backend import Framework, Runner, runner_of_checkpoint
from conversion.backends.frameworks import importing
from conversion.proof.certificate import RUN
from conversion.proof.proof import Proof, side_of, verify_runners
from conversion.proof.updates import Continuation, compare, inputs_of, parted
from conversion.result import Conversion
from conversion.writing import Content, Job, Options, convert_by
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.safetensors_file import read
from unet_core.errors import CheckpointError, RunError
from unet_core.files import sha256_of
from unet_core.progress import Progress, silent
from unet_core.staging import at_hand
from unet_core.training.history import read_history
from unet_core.training.lock import locked
from unet_core.training.run import (
    BEST,
    BOARD,
    HISTORY,
    PROFILE,
    START,
    STATES,
    RunConfig,
    is_run,
    read_run_config,
    start_network,
    versions_of,
    write_run_config,
)
from unet_core.training.state import TrainingState, difference
from unet_core.training.train_config import TrainConfig

logger = logging.getLogger(__name__)


@runtime_checkable
class States(Protocol):
    """The states of a run in its folder: `training.states` of either twin."""

    def steps_in(self, folder: Path, /) -> list[int]:
        """The steps that have one, the earliest first."""

    def path_of(self, folder: Path, step: int, /) -> Path:
        """Where that of a step is: a file, or a directory."""

    def read(self, folder: Path, step: int, start: Checkpoint, config: TrainConfig, /) -> TrainingState:
        """That of a step."""

    def write(self, folder: Path, state: TrainingState, config: TrainConfig, rate: float, /) -> None:
        """Write one as the only one; `rate` is the learning rate of its last update."""


def states_of(framework: Framework) -> States:
    """The module of a framework.

    Raises:
        MissingFrameworkError: it is not installed.
    """
    with importing():
        if framework == "torch":
            import unet_torch.training.states

            return unet_torch.training.states
        import unet_jax.training.states

        return unet_jax.training.states


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


def read_run(path: Path) -> OpenRun:
    """Read a run's newest sound state and what led there; nothing is changed. A damaged state is passed over.

    Raises:
        RunError: there is no run, or no sound state in it, or its history does not reach there; or it trains.
        MissingFrameworkError: its framework is not installed.
    """
    settings = read_run_config(path)
    states = states_of(settings.backend)
    with locked(path, shared=True), at_hand(path, _is_read) as local:
        start = _start(local, settings)
        state = _newest(local, settings, start, states)
        history = read_history(local / HISTORY)
        entries = [entry for entry in history if entry["step"] <= state.step]
    if [entry["step"] for entry in entries if "loss" in entry] != list(range(1, state.step + 1)):
        raise RunError(f"{path / HISTORY}: does not have the steps up to {state.step}; restore it")
    return OpenRun(path, settings, start, state, entries, _best(history) > _best(entries))


def _is_read(name: str) -> bool:
    """Of what is in a run's folder, whether more than people need it."""
    return name.split("/")[0] not in (BOARD, PROFILE)


def convert_run(src: Path, dst: Path, to: Framework, options: Options) -> Conversion:
    """Write a run that goes on in the framework `to` where the one in `src` stands; see `conversion.convert`."""
    if read_run_config(src).backend == to:
        raise RunError(f"{src}: trains in {to} already; to have it twice, copy the folder")
    if dst.resolve().is_relative_to(src.resolve()):
        raise RunError(f"{dst}: is the run itself, or in its folder; name a new folder elsewhere")
    if options.force and dst.exists() and not is_run(dst):
        raise RunError(f"{dst}: is no run, and not replaced by one; name a new folder")
    for framework in get_args(Framework):  # one reads, the other writes
        states_of(framework)

    def read() -> Job:
        for path in (src, dst):
            if path.exists():
                locks.enter_context(locked(path, shared=True))
        run = read_run(src)
        settings, step = _settings_in(to, run), run.state.step

        def read_back(partial: Path) -> Content:
            state = states_of(to).read(partial / STATES, step, run.start, settings.recipe)
            return Content(state.network, RUN, state)

        def prove(back: Content, progress: Progress) -> Proof:
            assert back.state is not None
            return verify_runs(run, OpenRun(dst, settings, run.start, back.state, run.entries), progress=progress)

        return Job(
            Content(run.state.network, RUN, run.state, sha256_of(state_path(src, run.settings, step))),
            lambda partial: _write_run(run, partial, settings),
            read_back,
            prove,
            digested=lambda partial: state_path(partial, settings, step),
        )

    with ExitStack() as locks:
        return convert_by(read, src, dst, is_run, options)


def state_path(run: Path, settings: RunConfig, step: int) -> Path:
    """Where the state of a step of a run is: a file, or a directory."""
    return states_of(settings.backend).path_of(run / STATES, step)


def state_at(path: Path, step: int) -> TrainingState:
    """The state of a step of the run in a folder.

    Raises:
        RunError: there is no run.
        CheckpointError: it is damaged, or not there.
        MissingFrameworkError: its framework is not installed.
    """
    settings = read_run_config(path)
    with at_hand(path, _is_read) as local:
        return states_of(settings.backend).read(local / STATES, step, _start(local, settings), settings.recipe)


def _settings_in(to: Framework, run: OpenRun) -> RunConfig:
    """Those with which a run goes on in the other framework."""
    old = run.settings
    return dataclasses.replace(
        old,
        backend=to,
        recipe=dataclasses.replace(old.recipe, compile=False, remat=False, rewrites=True),
        versions=versions_of(to),
        switches=(*old.switches, (run.state.step, old.backend)),
    )


def _write_run(run: OpenRun, folder: Path, settings: RunConfig) -> None:
    """Write a run's new folder, and log what is left out."""
    old = run.settings
    own = {"compile": old.recipe.compile, "remat": old.recipe.remat, "no-rewrites": not old.recipe.rewrites}
    for name in filter(own.get, own):
        logger.warning("--%s is left out: it is for %s alone", name, old.backend)
    folder.mkdir()
    rate = next(entry["rate"] for entry in reversed(run.entries) if "rate" in entry)
    states_of(settings.backend).write(folder / STATES, run.state, settings.recipe, rate)
    lines = "".join(json.dumps(entry) + "\n" for entry in run.entries)
    (folder / HISTORY).write_text(lines, encoding="utf-8")
    if run.ahead:
        logger.warning(
            "%s may be from after step %s and is left out; the next validation writes one",
            run.path / BEST,
            run.state.step,
        )
    with at_hand(run.path) as found:
        for name in (START,) if run.ahead else (BEST, START):
            if (found / name).exists():
                shutil.copy(found / name, folder / name)
        if (found / BOARD).is_dir():
            shutil.copytree(found / BOARD, folder / BOARD)
    write_run_config(folder, settings)


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


def _newest(path: Path, settings: RunConfig, start: Checkpoint, states: States) -> TrainingState:
    folder = path / STATES
    steps = states.steps_in(folder)
    for step in reversed(steps):
        try:
            state = states.read(folder, step, start, settings.recipe)
        except CheckpointError as error:
            logger.warning("%s is damaged and passed over: %s", states.path_of(folder, step), error)
        else:
            return state
    why = f"no state of {len(steps)} is sound" if steps else "has no saved state yet; train until the first one"
    raise RunError(f"{path}: {why}")
