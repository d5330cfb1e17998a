"""What time and memory the two frameworks take, by few rounds of `unet_compare.speed`: indicative."""

import dataclasses

from unet_compare.crops import taken
from unet_compare.findings import Cost
from unet_compare.speed.bench import look_around, measured
from unet_compare.speed.plan import Plan
from unet_compare.speed.subject import stored
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.errors import ConfigError
from unet_core.graph.canonical import Description
from unet_core.progress import Progress, silent

CANDIDATES = ("jax:ours", "torch:eager+channels_last")
"""What either twin's own commands run."""

NOTE = (
    "Time and memory are of A in both frameworks, by few rounds, and without torch.compile, which is faster and "
    "compiles for long: unet bench measures it all."
)


def cost(network: Checkpoint, *, rounds: int = 2, progress: Progress = silent) -> Cost:
    """Time a prediction and an update of a network, side by side.

    Args:
        network: what to time.
        rounds: how often each framework has its turn.
        progress: is told what is timed.

    Returns:
        What was found; its note says what could not be timed, and why.

    Raises:
        ConfigError: less than one round, or a network that takes no pictures that could be timed.
        MissingFrameworkError: neither framework runs.
    """
    plans = (
        Plan(inference=(_square(1, 256, network.config),), training=()),
        Plan(inference=(), training=(_square(2, 128, network.config),)),
    )
    timed, refused = [], []
    for plan in (dataclasses.replace(one, candidates=CANDIDATES, rounds=rounds, calls=1) for one in plans):
        plan.check()
        try:
            plan.check_network(network.config)
        except ConfigError as error:
            refused.append(str(error))
        else:
            timed.append(plan)
    if not timed:
        raise ConfigError(refused[0])
    with stored(network) as subject:
        progress("looking for devices", 0)
        environment, missing = look_around(timed[0], subject)
        found = []
        for number, plan in enumerate(timed):

            def part(text: str, done: float, number: int = number) -> None:
                progress(text, (number + done) / len(timed))

            (case,) = plan.cases(environment.platform)
            found.append(measured(plan, subject, network.config, case, environment, missing, part))
    return Cost(environment, tuple(found), " ".join([NOTE, *(f"Not timed: {why}." for why in refused)]))


def _square(batch: int, side: int, config: Description) -> str:
    side = taken(max(side, 2 * config.minimum_size), config)
    return f"{batch}x{side}x{side}"
