"""Where an arm departs from the first one, by `unet compare`'s account layer by layer, of the first arm's last network.

A process of its own, `python -m unet_compare.study.where`, as the arm's faults are planted in it.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from conversion.backends.backend import runner_of_checkpoint
from conversion.runs import read_run
from unet_compare.backends.backend import check_alike
from unet_compare.compare import sample_of
from unet_compare.divergence import divergence
from unet_compare.study.arms import Arm
from unet_compare.study.controls import planted, start_of
from unet_compare.study.findings import Where
from unet_compare.study.plan import Study, Trial
from unet_compare.study.processes import failure_of, served, started
from unet_compare.study.result import RUNS, run_folder
from unet_compare.study.runs import finished
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.codec import decoded, encoded, parsed
from unet_core.data.dataset import Dataset
from unet_core.data.opening import open_dataset
from unet_core.errors import UNetError
from unet_core.files import atomic
from unet_core.paths import as_path
from unet_core.progress import Progress, silent

WHERE = "where.json"


@dataclass(frozen=True)
class Order:
    """What is to be looked into."""

    run: str
    """The folder of a run of the first arm."""
    first: Arm
    arm: Arm
    data: str
    file: str
    """For what is found."""


def account(study: Study, folder: Path, *, progress: Progress = silent) -> dict[str, Where]:
    """Of every arm but the first, where its network departs from it; what was found before is not sought again."""
    first = study.arms[0]
    trial = next((one for one in study.trials() if one.arm is first and finished(folder, one)), None)
    if trial is None:
        return {}
    networks: dict[str, Where | None] = {_network(first): None}
    found: dict[str, Where] = {}
    for number, arm in enumerate(study.arms[1:], 1):
        if arm.control == "rounding":
            continue
        if _network(arm) not in networks:
            file = folder / RUNS / arm.folder / WHERE
            progress(f"layer by layer: {arm.name}", number / len(study.arms))
            networks[_network(arm)] = _known(file, trial, arm) or _sought(study, folder, trial, arm)
        said = networks[_network(arm)]
        if said is not None:
            found[arm.name] = said
    return found


def _network(arm: Arm) -> str:
    """What decides where an arm departs; how it trains does not."""
    fields = encoded(arm) | {"recipe": [arm.recipe.features, arm.recipe.upsampling], "name": ""}
    return json.dumps(fields, sort_keys=True)


def _sought(study: Study, folder: Path, trial: Trial, arm: Arm) -> Where:
    file = folder / RUNS / arm.folder / WHERE
    order = Order(str(run_folder(folder, trial)), trial.arm, arm, study.data, str(file))
    with started("unet_compare.study.where", order, arm) as process:
        failure = failure_of(process)
    return _known(file, trial, arm) or Where(f"not compared: {failure}", departs=False)


def _known(file: Path, trial: Trial, arm: Arm) -> Where | None:
    try:
        fields = parsed(file.read_text(encoding="utf-8"))
        found: Where = decoded(Where, fields["where"])
        return found if fields["arms"] == [trial.arm.digest, arm.digest] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def look(order: Order) -> None:
    """Compare, and write what was found."""
    network = read_run(as_path(order.run)).state.network
    recipe = order.arm.recipe
    source = open_dataset(order.data, masks=recipe.masks, pictures=recipe.pictures)
    channels, classes = source.channels, len(source.values)
    start = start_of(order.arm, recipe, channels, classes)
    config = start.config if start is not None else recipe.network(channels, classes)
    try:
        check_alike(network.config, config)
        said = _said(network, dataclasses.replace(network, config=config), source, order)
    except UNetError as error:
        said = Where(f"not compared: {error}", departs=False)
    file = as_path(order.file)
    with atomic(file, force=True) as partial:
        partial.write_text(
            json.dumps({"arms": [order.first.digest, order.arm.digest], "where": encoded(said)}) + "\n",
            encoding="utf-8",
        )


def _said(network: Checkpoint, other: Checkpoint, source: Dataset, order: Order) -> Where:
    a = runner_of_checkpoint(network, order.first.backend, order.first.name)
    with planted(order.arm.control):
        b = runner_of_checkpoint(other, order.arm.backend, order.arm.name)
        found = divergence(a, b, sample_of(source, a, None))
    if found.layer is None:
        return Where("every layer is within its budget, in every pass", departs=False)
    cause = found.cause or "no known cause explains it"
    return Where(f"{found.layer}, {found.quantity}, in {found.precision}: {cause}", departs=True)


if __name__ == "__main__":
    sys.exit(served(Order, look))
