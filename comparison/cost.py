"""What time and memory the two frameworks take, by few rounds of `comparison.speed`: indicative."""

from comparison.findings import Cost
from comparison.speed.bench import look_around, measured
from comparison.speed.plan import Plan
from unet_core.config import UNetConfig
from unet_core.progress import Progress, silent

CANDIDATES = ("jax:ours", "torch:eager+channels_last")
"""What either twin's own commands run."""

NOTE = (
    "Time and memory are of a network with these features, 3 channels in and 1 out, by few rounds, and without "
    "torch.compile, which is faster and compiles for long: unet bench measures it all."
)


def cost(config: UNetConfig, *, rounds: int = 2, progress: Progress = silent) -> Cost:
    """Time a prediction and an update of a network with the features of `config`, side by side.

    Args:
        config: of the network.
        rounds: how often each framework has its turn.
        progress: is told what is timed.

    Raises:
        ConfigError: less than one round, or features that cannot be timed.
        MissingFrameworkError: neither framework runs.
    """
    unit = 2 * config.minimum_size
    plan = Plan(
        inference=(f"1x{max(256, unit)}x{max(256, unit)}",),
        training=(f"2x{max(128, unit)}x{max(128, unit)}",),
        features=config.features,
        candidates=CANDIDATES,
        rounds=rounds,
        calls=1,
    )
    plan.check()
    progress("looking for devices", 0)
    environment, missing = look_around(plan)
    cases = plan.cases(environment.platform)
    found = []
    for number, case in enumerate(cases):

        def part(text: str, done: float, number: int = number) -> None:
            progress(text, (number + done) / len(cases))

        found.append(measured(plan, case, environment, missing, part))
    return Cost(environment, tuple(found), NOTE)
