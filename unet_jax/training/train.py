"""Training in JAX, from the first step to the last, in one straight line. `unet_torch/training/train.py` is the twin.

One program over all devices of all hosts: batch and state are split over a mesh (`unet_jax.training.mesh`), and XLA
adds what has to be exchanged, the sums behind BatchNorm's statistics of the whole batch among it.
"""

import functools
import logging

import jax
from jax import Array
from jax.sharding import Mesh

from unet_core.checkpoints.safetensors_file import write
from unet_core.files import atomic
from unet_core.prediction.evaluation import Share
from unet_core.prediction.tile_geometry import tiling
from unet_core.progress import Progress, silent
from unet_core.training.profiling import Profile
from unet_core.training.recorder import Follower, Outcome, Recorder
from unet_core.training.run import BEST, PROFILE, Run
from unet_core.training.signals import Request, stop_requests
from unet_jax.network import Network
from unet_jax.predict import Predictor
from unet_jax.training.hosts import Hosts
from unet_jax.training.layout import in_torchs_layout
from unet_jax.training.mesh import check_rows, device_mesh, peak_of, share
from unet_jax.training.profiler import Profiler
from unet_jax.training.shared_states import SharedStates
from unet_jax.training.state_folder import States
from unet_jax.training.step import abstract_model, compiled, controls_of, host_network, on_one_device, placed, updater
from unet_jax.training.train_state import Tree

logger = logging.getLogger(__name__)


def train(
    run: Run,
    *,
    mesh: Mesh | None = None,
    hosts: Hosts | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Train until the run's last step, or until SIGTERM or Ctrl-C; either way of leaving saves the state first.

    Args:
        run: what to train, on what, and where to write; where it has a saved state, that is gone on with.
        mesh: the devices, as `unet_jax.training.mesh.device_mesh` gives them, whatever they were before; None: all
            that JAX has, for the batch to be split over.
        hosts: the processes that train together (`unet_jax.training.hosts.started`); None: this one alone. The first
            one writes the history and logs; all validate and write the states.
        progress: is told where the training is.

    Raises:
        unet_core.UNetError: devices that do not divide the batch, a loss that is no number, or a state that cannot be
            written or read; in one line.
    """
    hosts = hosts or Hosts()
    wide, together = run.recipe.precision == "float64", hosts.count > 1
    with jax.enable_x64(wide), stop_requests(together=together) as request:
        return _train(run, mesh or device_mesh(run.recipe.batch), hosts, request, progress)


def _train(run: Run, mesh: Mesh, hosts: Hosts, request: Request, progress: Progress) -> Outcome:
    train_config, start = run.recipe, run.start
    check_rows(mesh, train_config, start.config)
    model = abstract_model(start, train_config)
    if mesh.size > 1 and hosts.first:
        among = f" of {hosts.count} hosts" if hosts.count > 1 else ""
        split = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
        logger.info("on %s devices%s: %s", mesh.size, among, split)
    predictor = _predictor(run, model, mesh)
    folder, validators = run.states, Share(hosts.index, hosts.count, hosts.gathered)

    with (
        States(folder, train_config.keep)
        if hosts.count == 1
        else SharedStates(folder, train_config.keep, hosts) as states
    ):
        step, state = states.restored(start, train_config, mesh)
        progress(f"compiling for {mesh.size} x {mesh.devices.flat[0].device_kind}", 0)
        pictures = start.config.in_channels, start.config.dimensions
        update = compiled(updater(train_config, model, mesh), state, train_config, mesh, *pictures)
        peak = peak_of(mesh, train_config.precision)
        recorder = Recorder(run, step, progress, peak) if hosts.first else Follower(run, step)
        pending: list[Array] = []  # losses and norms that are still on the devices
        rates: list[float] = []
        profile = Profile(run.profile if hosts.first else None, run.path / PROFILE, Profiler(pending))
        with recorder, run.batches(step, share(mesh, train_config.batch)) as batches, profile:
            ahead = placed(batches, train_config, mesh)
            stop = False
            while step < run.last and not stop:
                rates.append(recorder.rate(step))
                with profile.update(step):
                    image, labels = next(ahead)
                    controls = controls_of(rates[-1], train_config.renewal(step), mesh, step)
                    with jax.transfer_guard("disallow"):
                        state, values = update(state, image, labels, controls)
                    pending.append(values)
                step += 1
                # Asked once: what is saved below is what was fetched.
                stop = hosts.stops(step, request) or step == run.last

                if recorder.due(step, stop):
                    recorder.steps(step, [pair.tolist() for pair in jax.device_get(pending)], rates)
                    pending.clear()
                    rates.clear()
                if recorder.validates(step):
                    judged: tuple[Tree, Tree] = on_one_device(state.average or (state.params, state.stats), mesh)
                    if recorder.validate(
                        step,
                        functools.partial(predictor.bands, variables=jax.jit(in_torchs_layout)(judged)),
                        validators,
                    ):
                        with atomic(run.path / BEST, force=True) as partial:
                            write(partial, host_network(*judged, start))
                if recorder.saves(step, stop):
                    recorder.flush()
                    states.keep(step, state, start)
                    run.publish(states.settle)
    return recorder.outcome(step, request)


def _predictor(run: Run, model: Network, mesh: Mesh) -> Predictor:
    """For validations, on as many of this process's devices as a picture has tiles."""
    config, (tile, overlap) = run.start.config, run.tiles
    devices = mesh.local_devices[: max(len(tiling(config, size, tile, overlap)) for size in run.judged_sizes)]
    return Predictor(model, tile=tile, overlap=overlap, devices=devices if len(devices) > 1 else None)
