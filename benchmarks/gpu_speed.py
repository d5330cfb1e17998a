"""Inference and training on an NVIDIA GPU, in JAX beside the best of PyTorch: `make bench-gpu`.

Three networks, each in bfloat16, in TF32 and in float32 without it, timed as `unet bench` times them. What is most
important comes first; what the time does not suffice for is left out, and said to be. Without a GPU small networks are
timed on the CPU, which shows that the command runs, and nothing else.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unet_compare.speed.arguments import parsed
from unet_compare.speed.bench import exit_code, look_around, measured, versions
from unet_compare.speed.plan import Case, Plan, Precision
from unet_compare.speed.process import OutOfTimeError
from unet_compare.speed.report import SCHEMA, CaseReport, Environment, Figures
from unet_compare.speed.subject import Subject, opened, stored
from unet_compare.speed.table import print_case, print_environment, say
from unet_core.errors import ConfigError
from unet_core.files import atomic, check_target

OURS, SMP, NNUNET = "unet_torch.UNet", "smp.Unet-resnet34", "nnunet.PlainConvUNet"
ORDER: tuple[tuple[str, Precision], ...] = (
    (OURS, "bfloat16"),
    (OURS, "tf32"),
    (SMP, "bfloat16"),
    (NNUNET, "bfloat16"),
    (OURS, "float32"),
    (SMP, "tf32"),
    (NNUNET, "tf32"),
    (SMP, "float32"),
    (NNUNET, "float32"),
)
"""What is measured, the most important first; of each inference and training."""
CANDIDATES = ("jax:ours", "torch:eager+channels_last", "torch:compile+channels_last")
PACKAGES = ("segmentation_models_pytorch", "dynamic_network_architectures")
HEADINGS = (
    *("network", "case", "precision", "JAX", "ratio to the faster of PyTorch", "eager", "compile"),
    *("peak memory, JAX", "PyTorch"),
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large what is timed is."""

    networks: str
    """The function of `benchmarks.public_networks` that builds those of others."""
    features: tuple[int, ...]
    inference: str
    training: str
    candidates: tuple[str, ...]
    order: tuple[tuple[str, Precision], ...]
    rounds: int

    def plan(self, network: str, precision: Precision) -> Plan:
        """What is measured of a network."""
        ours = network == OURS
        return Plan(
            inference=(self.inference,),
            training=(self.training,),
            features=self.features,
            module=None if ours else f"benchmarks.public_networks:{self.networks}",
            kwargs=() if ours else (f"name={network}",),
            precision=precision,
            candidates=self.candidates,
            rounds=self.rounds,
        )


ON_GPU = Scale(
    networks="wide",
    features=Plan.features,
    inference="8x512x512",
    training="8x256x256",
    candidates=CANDIDATES,
    order=ORDER,
    rounds=3,
)
ON_CPU = Scale(
    networks="built",
    features=(4, 8, 16),
    inference="1x64x64",
    training="2x64x64",
    candidates=CANDIDATES[:-1],
    order=((OURS, "bfloat16"), *(one for one in ORDER if one[1] == "float32")),
    rounds=1,
)


class Row(NamedTuple):
    """A case of a network."""

    network: str
    precision: Precision
    case: Case
    report: CaseReport | None
    """None: the time did not suffice."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        found = {} if self.report is None else self.report.to_dict()
        return {"network": self.network, "precision": self.precision, "case": self.case._asdict(), **found}

    def cells(self) -> tuple[str, ...]:
        """As in `HEADINGS`; a candidate that did not run has a dash."""
        first = (self.network, str(self.case), self.precision)
        if self.report is None:
            return (*first, "left out: the time was up", *("",) * (len(HEADINGS) - 4))
        found = {one.name: one for one in self.report.candidates}
        ours, eager, compiled = map(found.get, CANDIDATES)
        best = found.get(self.report.reference or "")
        ratio = f"{ours.ratio:.2f} ({ours.spread[0]:.2f} to {ours.spread[1]:.2f})" if ours else "-"
        return (*first, _time(ours), ratio, _time(eager), _time(compiled), _peak(ours), _peak(best))


@dataclass(frozen=True, kw_only=True)
class GPU:
    """Measure inference and training of three networks on a GPU, in JAX beside PyTorch, in three precisions.

    Exit code 1 where no candidate ran.
    """

    budget: float = 450.0
    """Seconds, after which what is not measured is left out; about 1800 measure everything."""
    out: Path = Path("bench-gpu.json")
    """Write every figure to this JSON file, and the table beside it, to one that ends in .md."""

    def run(self) -> int:
        """Measure, and write both files."""
        deadline = time.monotonic() + self.budget
        if not self.budget > 0:
            raise ConfigError(f"--budget {self.budget:g}: give seconds, more than 0")
        if self.out.suffix != ".json":
            raise ConfigError(f"--out {self.out}: give a name that ends in .json")
        table = self.out.with_suffix(".md")
        for path in (self.out, table):
            check_target(path, force=True)
        rows, environment = self._measured(deadline)
        with atomic(self.out, force=True) as partial:
            partial.write_text(to_json(environment, rows), encoding="utf-8")
        with atomic(table, force=True) as partial:
            partial.write_text(to_markdown(environment, rows), encoding="utf-8")
        say(f"\n{table.read_text(encoding='utf-8')}\n{self.out}, {table}")
        return 0 if any(row.report and row.report.candidates for row in rows) else 1

    def _measured(self, deadline: float) -> tuple[list[Row], Environment]:
        environment, missing = look_around(ON_CPU.plan(OURS, "tf32"), Subject(ON_CPU.features))
        tf32 = all(device["tf32"] for device in environment.devices.values())
        environment = dataclasses.replace(environment, versions=environment.versions | versions(PACKAGES))
        print_environment(environment, None)
        on_gpu = [name for name, device in environment.devices.items() if device["platform"] == "gpu"]
        if on_gpu and len(on_gpu) < len(environment.devices):
            raise ConfigError(f"only {on_gpu[0]} runs on the GPU; for JAX: pip install -e '.[cuda]' -c constraints.txt")
        scale = ON_GPU if on_gpu else ON_CPU
        if scale is ON_CPU:
            say("There is no GPU: small networks on the CPU, without TF32 and torch.compile, only show that this runs.")
        rows = []
        with contextlib.ExitStack() as stack:
            subjects: dict[str, Subject] = {}
            for network, precision in scale.order:
                if precision == "tf32" and not tf32:
                    continue
                plan = scale.plan(network, precision)
                for case in plan.cases(environment.platform):
                    report = None
                    with contextlib.suppress(OutOfTimeError):
                        if time.monotonic() > deadline:
                            raise OutOfTimeError
                        if network not in subjects:
                            subjects[network] = _subject(plan, stack)
                        subject = subjects[network]
                        config = subject.config
                        report = measured(plan, subject, config, case, environment, missing, deadline=deadline)
                        say(f"\n{network}, {precision}")
                        print_case(report, precision)
                    rows.append(Row(network, precision, case, report))
        return rows, environment


def _subject(plan: Plan, stack: contextlib.ExitStack) -> Subject:
    """The plan's network, in a file while the stack lasts, or this project's."""
    if plan.module is None:
        return Subject(plan.features)
    network = opened(None, plan.module, plan.kwargs)
    return stack.enter_context(stored(network, plan.module, plan.kwargs))


def to_json(environment: Environment, rows: Sequence[Row]) -> str:
    """Every figure; a case without any was left out."""
    fields = {"schema": SCHEMA, **dataclasses.asdict(environment), "cases": [row.to_dict() for row in rows]}
    return json.dumps(fields, indent=2) + "\n"


def to_markdown(environment: Environment, rows: Sequence[Row]) -> str:
    """Where it was measured, and the table; times in milliseconds, memory in GB."""
    where = [*environment.machine["gpus"], *(f"{name} {version}" for name, version in environment.versions.items())]
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells() for row in rows)]
    failed = [
        f"{row.network}, {row.case}, {row.precision}: {name} did not run: {reason}"
        for row in rows
        if row.report
        for name, reason in row.report.failed.items()
    ]
    return "\n".join((f"{'; '.join(where)}\n", *(f"| {' | '.join(line)} |" for line in lines), "", *failed)) + "\n"


def _time(one: Figures | None) -> str:
    return f"{1e3 * one.median:.1f} ms" if one else "-"


def _peak(one: Figures | None) -> str:
    return f"{one.memory.peak / 1e9:.2f} GB" if one and one.memory.peak else "-"


if __name__ == "__main__":
    sys.exit(exit_code(lambda: parsed(GPU, "python -m benchmarks.gpu_speed").run()))
