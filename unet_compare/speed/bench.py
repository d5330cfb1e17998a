"""The speed of a network in both frameworks, side by side: `unet bench`, and `python -m unet_compare.speed`.

The second one needs nothing but the frameworks, or one of them, and what those need themselves.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from unet_compare.speed.arguments import parsed
from unet_compare.speed.plan import Candidate, Case, Framework, Plan
from unet_compare.speed.process import Worker, WorkerError
from unet_compare.speed.report import CaseReport, Environment, Found, Memory, judged, to_json
from unet_compare.speed.subject import Subject, opened, stored
from unet_compare.speed.table import EXPLANATION, print_case, print_environment, say, status_line
from unet_core.errors import ConfigError, MissingFrameworkError, UNetError, of_system
from unet_core.files import atomic, check_target
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.installation import installing
from unet_core.progress import Progress, silent

PACKAGES = ("torch", "triton", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "numpy")


def bench(plan: Plan) -> int:
    """Measure, print the table of every case as soon as it is done, and write what is asked for.

    Returns:
        The exit code: 0, or 1 where no candidate ran.

    Raises:
        UNetError: there is no framework, or a file cannot be written.
    """
    plan.check()
    image = plan.out.with_suffix(".png") if plan.out and plan.growth else None
    for path in filter(None, (plan.out, image)):
        check_target(path, force=True)
    if image and importlib.util.find_spec("matplotlib") is None:
        raise MissingFrameworkError(f"--growth needs matplotlib: {installing('train')}")
    with _asked(plan) as subject:
        config = subject.config
        plan.check_network(config)
        environment, missing = look_around(plan, subject)
        for framework, device in environment.devices.items():
            if plan.precision == "tf32" and not device["tf32"]:
                raise ConfigError(f"--precision tf32: a GPU has it; {framework} runs on {device['device']}")
        print_environment(environment, plan.precision)
        if subject.file is not None:
            graph = "its graph, for want of --module" if isinstance(config, Graph) else "unet_torch.UNet"
            say(f"{config.title}; torch runs {subject.module or graph}")
        cases = plan.cases(environment.platform)
        reports: list[CaseReport] = []
        for case in cases:
            with status_line() as progress:
                part = _part(progress, len(reports), len(cases))
                reports.append(measured(plan, subject, config, case, environment, missing, part))
            print_case(reports[-1], plan.precision)
    say(EXPLANATION)
    if plan.out:
        names = ("features",) if subject.file is None else ("checkpoint", "module", "kwargs")
        options = {name: getattr(plan, name) for name in (*names, "precision", "rounds", "calls")}
        options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        with atomic(plan.out, force=True) as partial:
            partial.write_text(to_json(environment, options, reports), encoding="utf-8")
    if image:
        from unet_compare.speed.growth import draw

        draw(reports, image)
        say(f"the growth is drawn in {image}")
    return 0 if any(report.candidates for report in reports) else 1


def _asked(plan: Plan) -> AbstractContextManager[Subject]:
    if plan.checkpoint is None and plan.module is None:
        return contextlib.nullcontext(Subject(plan.features))
    return stored(opened(plan.checkpoint, plan.module, plan.kwargs), plan.module, plan.kwargs)


def look_around(plan: Plan, subject: Subject) -> tuple[Environment, dict[Framework, str]]:
    """The machine and the devices; and why a framework does not run that is installed, or asked for by name.

    Raises:
        MissingFrameworkError: none does.
    """
    wanted = [one for one in plan.chosen if plan.candidates or importlib.util.find_spec(one.framework)]
    computer = machine()
    devices: dict[str, dict[str, Any]] = {}
    missing: dict[Framework, str] = {}
    with contextlib.ExitStack() as stack:
        setups = {one.framework: plan.setup(one, plan.cases("cpu")[0], subject) for one in wanted}
        workers = {name: stack.enter_context(Worker(setup)) for name, setup in setups.items()}
        for name, worker in workers.items():
            try:
                devices[name] = worker.ask("describe")
            except WorkerError as error:
                missing[name] = str(error)
    if not devices:
        why = "; ".join(f"{name}: {reason}" for name, reason in missing.items()) or "neither is installed"
        raise MissingFrameworkError(f"this needs JAX or PyTorch: {why}")
    return Environment(computer, versions(), devices), missing


def measured(
    plan: Plan,
    subject: Subject,
    network: Description,
    case: Case,
    environment: Environment,
    missing: Mapping[Framework, str],
    progress: Progress = silent,
    deadline: float | None = None,
) -> CaseReport:
    """One case: every candidate in a process of its own, the rounds in turn.

    Args:
        plan: which candidates, and how often.
        subject: the network, as each process makes it.
        network: what describes it.
        case: what to time.
        environment: the devices.
        missing: frameworks whose candidates do not run, and why.
        progress: is told how far it is.
        deadline: when to give up, by `time.monotonic`.

    Raises:
        OutOfTimeError: the deadline came first.
    """
    failed = {one.name: missing[one.framework] for one in plan.chosen if one.framework in missing}
    devices = environment.devices
    candidates = [
        one
        for one in plan.chosen
        if one.framework in devices and one.runs(case.kind, devices[one.framework]["platform"])
    ]
    replies: dict[Candidate, list[dict[str, Any]]] = {one: [] for one in candidates}
    with contextlib.ExitStack() as stack:
        workers = {one: stack.enter_context(Worker(plan.setup(one, case, subject), deadline)) for one in candidates}

        def ask_all(text: str, done: float, what: str, **more: Any) -> None:
            """Those that cannot, or die, are out."""
            for one in list(workers):
                progress(f"{case}, {text}: {one.name}", done)
                try:
                    replies[one].append(workers[one].ask(what, **more))
                except WorkerError as error:
                    failed[one.name] = str(error)
                    workers.pop(one).close()

        ask_all("starting", 0, "describe")  # all have imported what they need before the first one compiles
        ask_all("compiling", 0.1, "prepare")
        for number in range(1, plan.rounds + 1):
            ask_all(f"round {number}", 0.5 + 0.5 * (number - 1) / plan.rounds, "turn", number=number)
        found = [_found(one, *replies[one]) for one in workers]
    return judged(case, network, found, failed)


def _found(candidate: Candidate, _: dict[str, Any], first: dict[str, Any], *turns: dict[str, Any]) -> Found:
    """What a worker told, one answer after the other."""
    return Found(
        candidate,
        seconds=tuple(turn["seconds"] for turn in turns),
        matmuls=tuple(turn["matmul"] for turn in turns),
        handovers=tuple((before, after) for before, after in (turn["handovers"] for turn in turns)),
        compile_seconds=first["compile_seconds"],
        memory=Memory(**first["memory"]),
        answer=tuple(first["answer"]),
    )


def machine() -> dict[str, Any]:
    """The computer; `cores` are those that this process may use, `load` is what keeps them busy before it begins.

    `malloc` is how glibc was asked to take memory from the system, which the candidates' processes inherit.
    """
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": usable,
        "all_cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "malloc": os.environ.get("GLIBC_TUNABLES", ""),
        "platform": platform.platform(),
        "gpus": _gpus(),
    }


def _gpus() -> list[str]:
    """Name, memory and driver of each GPU, as NVIDIA's tool says; none where that is not installed or fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Of Python, and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _part(progress: Progress, number: int, count: int) -> Progress:
    return lambda text, done: progress(text, (number + done) / count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return exit_code(lambda: bench(parsed(Plan, "python -m unet_compare.speed", arguments)))


def exit_code(command: Callable[[], int]) -> int:
    """What the command returns, or what its failure is worth, which is told in one line."""
    try:
        return command()
    except (UNetError, OSError) as error:
        sys.stderr.write(f"bench: {of_system(error) if isinstance(error, OSError) else error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted\n")
        return 130
