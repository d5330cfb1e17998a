"""Training in PyTorch, from the first step to the last, in one straight line. `unet_jax/training/train.py` is the
twin.
"""

import torch
from torch import Tensor

from unet_core.prediction.evaluation import Share
from unet_core.progress import Progress, silent
from unet_core.training.profiling import Profile
from unet_core.training.recorder import Follower, Outcome, Recorder
from unet_core.training.run import BEST, PROFILE, Run
from unet_core.training.signals import stop_requests
from unet_torch.checkpoint import save
from unet_torch.predict import Predictor
from unet_torch.training.processes import Processes, alone
from unet_torch.training.profiler import Profiler
from unet_torch.training.states import States
from unet_torch.training.step import new_state, placed, updater


def train(
    run: Run,
    *,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Train until the run's last step, or until SIGTERM or Ctrl-C; either way of leaving saves the state first.

    Args:
        run: what to train, on what, and where to write; where it has a saved state, that is gone on with.
        processes: those that train together (`unet_torch.training.processes.started`); None: this one alone, on the
            first CUDA device where there is one, otherwise on the CPU. The first one writes and logs; all validate.
        progress: is told where the training is.

    Raises:
        unet_core.UNetError: a loss that is no number, or a state that cannot be written or read; in one line.
    """
    train_config, start = run.recipe, run.start
    together = processes or alone()
    together.check(train_config, start.config)
    device = together.device
    state = new_state(start, train_config, device, together)
    update = updater(train_config, state, together)
    judged = state.average or state.model
    tile, overlap = run.tiles
    predictor = Predictor(judged, tile=tile, overlap=overlap, bfloat16=train_config.precision == "bfloat16")
    share = Share(together.rank, together.size, together.gathered)

    with stop_requests() as request, States(run.states, train_config.keep, together.rank) as states:
        step = together.agreed(states.newest(state.load_state_dict), run.states)
        peak, first = together.peak(train_config.precision), together.rank == 0
        recorder = Recorder(run, step, progress, peak) if first else Follower(run, step)
        pending: list[Tensor] = []  # losses and norms that are still on the device
        rates: list[float] = []
        profile = Profile(run.profile if first else None, run.path / PROFILE, Profiler(device))
        with recorder, run.batches(step, (together.rank, together.size)) as batches, profile:
            stop = False
            while step < run.last and not stop:
                rates.append(recorder.rate(step))
                with profile.update(step):
                    image, labels = placed(next(batches), train_config, device)
                    pending.append(update(image, labels, rates[-1], train_config.renewal(step), step))
                step += 1
                # Asked once: what is saved below is what was fetched.
                stop = together.total(float(request.signal is not None)) > 0 or step == run.last

                if recorder.due(step, stop):
                    recorder.steps(step, torch.stack(pending).tolist(), rates)
                    pending.clear()
                    rates.clear()
                if recorder.validates(step):
                    together.align(judged)
                    if recorder.validate(step, predictor.bands, share):
                        save(judged, run.path / BEST, force=True)
                if recorder.saves(step, stop) and first:
                    recorder.flush()
                    states.save(step, state.state_dict(step))
                    run.publish()
    return recorder.outcome(step, request)
