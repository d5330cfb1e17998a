"""Training in JAX, from the first step to the last, in one straight line. `unet_torch/train.py` is the twin.

One program over all devices: batch and state are split over a mesh (`unet_jax.mesh`), and XLA adds what has to be
exchanged, the sums behind BatchNorm's statistics of the whole batch among it.
"""

import functools
from collections.abc import Callable

import jax
from jax import Array
from jax.sharding import Mesh

from unet_core.checkpoint import Checkpoint
from unet_core.evaluation import evaluate
from unet_core.files import atomic
from unet_core.progress import Progress, silent
from unet_core.recorder import Outcome, Recorder
from unet_core.run import BEST, STATES, Run
from unet_core.safetensors_file import write
from unet_core.signals import Request, stop_requests
from unet_core.tiles import default_tile
from unet_jax.mesh import check_rows, device_mesh
from unet_jax.predict import Predictor
from unet_jax.states import Arrays, States
from unet_jax.step import (
    abstract_model,
    compiled,
    controls_of,
    host_arrays,
    host_network,
    new_state,
    placed,
    updater,
)


def train(
    run: Run,
    *,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Train until the run's last step, or until SIGTERM or Ctrl-C; either way of leaving saves the state first.

    Args:
        run: what to train, on what, and where to write; where it has a saved state, that is gone on with.
        mesh: the devices, as `unet_jax.mesh.device_mesh` gives them, whatever they were before; None: all that JAX has,
            for the batch to be split over.
        progress: is told where the training is.
        tell: is told in a line what happens besides.

    Raises:
        unet_core.UNetError: devices that do not divide the batch, a loss that is no number, or a state that cannot be
            written or read; in one line.
    """
    with jax.enable_x64(run.recipe.precision == "float64"), stop_requests() as request:
        return _train(run, mesh or device_mesh(run.recipe.batch), request, progress, tell)


def _train(run: Run, mesh: Mesh, request: Request, progress: Progress, tell: Callable[[str], None]) -> Outcome:
    recipe, start = run.recipe, run.start
    check_rows(mesh, recipe, start.config)
    state = new_state(start, recipe, mesh)
    model = abstract_model(start, recipe)
    if mesh.size > 1:
        tell(f"on {mesh.size} devices: {', '.join(f'{axis}={size}' for axis, size in mesh.shape.items())}")
    progress(f"compiling for {mesh.size} x {mesh.devices.flat[0].device_kind}", 0)
    update = compiled(updater(recipe, model, mesh), state, recipe, mesh)
    predictor = Predictor(model, tile=default_tile(start.config, run.validation.sizes))

    def resume(model: Checkpoint, training: Arrays) -> None:
        nonlocal state
        state = new_state(model, recipe, mesh, training)

    with States(run.path / STATES, recipe.keep) as states:
        step = states.newest(resume, tell)
        recorder = Recorder(run, step, progress, tell)
        pending: list[Array] = []  # losses and norms that are still on the devices
        rates: list[float] = []
        share = jax.process_index(), jax.process_count()
        with recorder, run.batches(step, share) as batches:
            ahead = placed(batches, recipe, mesh)
            stop = False
            while step < run.last and not stop:
                rates.append(recorder.rate(step))
                image, labels = next(ahead)
                controls = controls_of(rates[-1], recipe.renewal(step), mesh)
                with jax.transfer_guard("disallow"):
                    state, values = update(state, image, labels, controls)
                pending.append(values)
                step += 1
                # Asked once: what is saved below is what was fetched.
                stop = request.signal is not None or step == run.last

                if recorder.due(step, stop):
                    recorder.steps(step, [pair.tolist() for pair in jax.device_get(pending)], rates)
                    pending.clear()
                    rates.clear()
                if recorder.validates(step):
                    judged = state.average or (state.params, state.stats)
                    bands = functools.partial(predictor.bands, variables=judged)
                    found = evaluate(bands, run.validation, loss=recipe.loss, output=start.config.output, samples=4)
                    tell(f"step {step}: {found}")
                    if recorder.evaluation(step, found):
                        with atomic(run.path / BEST, force=True) as partial:
                            write(partial, host_network(*judged, start))
                if recorder.saves(step, stop):
                    recorder.flush()
                    states.save(step, host_network(state.params, state.stats, start), host_arrays(state))
    return recorder.outcome(step, request)
