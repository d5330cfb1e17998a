"""`python -m benchmarks.gpu_speed`: the order of what it measures, what it leaves out, and what it writes."""

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import gpu_speed
from benchmarks.gpu_speed import CANDIDATES, GPU, HEADINGS, NNUNET, ORDER, OURS, Row, to_markdown
from unet_compare.speed.bench import exit_code
from unet_compare.speed.plan import Candidate, Case
from unet_compare.speed.process import OutOfTimeError
from unet_compare.speed.report import Environment, Found, Memory, judged
from unet_compare.speed.subject import Subject

CASE = Case("inference", 1, 16, 16)
SMALL = Subject((2, 3))


def found(name, seconds, peak=2_000_000_000):
    framework, _, words = name.partition(":")
    candidate = Candidate(framework, tuple(words.split("+")))
    return Found(candidate, (seconds,), (1e9,), ((None, None),), 0.5, Memory(0, 1_000, peak), (1.0, 2.0))


def report(case=CASE, failed=()):
    names = [name for name in CANDIDATES if name not in failed]
    times = [
        found(name, seconds) for name, seconds in zip(CANDIDATES, (1e-3, 4e-3, 2e-3), strict=True) if name in names
    ]
    return judged(case, SMALL.config, times, dict.fromkeys(failed, "out of memory"))


@pytest.fixture
def machine(monkeypatch):
    """A machine of these devices, on which the first cases take no time and the others too long; what is measured."""
    done = []

    def made(most=100, **devices):
        found = {"cpu": "a CPU", "cores": 2, "load": 0.0, "malloc": "", "gpus": ["A100, 80 GB, 580.1"]}
        environment = Environment(found, {"jax": "1.2"}, devices)

        def measured(plan, subject, config, case, environment, missing, deadline):
            assert deadline > time.monotonic()
            if len(done) == most:
                raise OutOfTimeError
            done.append((plan, case))
            return report(case)

        monkeypatch.setattr(gpu_speed, "look_around", lambda *_: (environment, {}))
        monkeypatch.setattr(gpu_speed, "measured", measured)
        monkeypatch.setattr(gpu_speed, "opened", lambda *_: None)
        monkeypatch.setattr(gpu_speed, "stored", lambda *_: _Stored())
        return done

    return made


class _Stored:
    def __enter__(self):
        return SMALL

    def __exit__(self, *_):
        pass


def device(platform, *, tf32):
    return {"platform": platform, "device": platform, "tf32": tf32}


def test_every_network_is_measured_in_every_precision_the_most_important_first(machine, tmp_path):
    done = machine(jax=device("gpu", tf32=True), torch=device("gpu", tf32=True))
    assert GPU(out=tmp_path / "gpu.json").run() == 0
    assert len(ORDER) == len(set(ORDER)) == 9
    assert [str(case) for _, case in done[:2]] == ["inference 8x512x512", "training 8x256x256"]
    assert [plan.precision for plan, _ in done[::2]] == [precision for _, precision in ORDER]
    assert all(plan.candidates == CANDIDATES for plan, _ in done)
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    assert lines[0] == "A100, 80 GB, 580.1; jax 1.2" + "".join(
        f"; {name} {version}" for name, version in gpu_speed.versions(gpu_speed.PACKAGES).items()
    )
    assert len(lines) == 2 + 2 + 18 + 1
    assert json.loads((tmp_path / "gpu.json").read_text())["cases"][0]["candidates"][0]["memory"]["peak"] == 2e9


def test_what_the_time_does_not_suffice_for_is_left_out_and_said_to_be(machine, tmp_path):
    machine(3, jax=device("gpu", tf32=True), torch=device("gpu", tf32=True))
    assert GPU(out=tmp_path / "gpu.json").run() == 0
    table = (tmp_path / "gpu.md").read_text()
    assert table.count("left out: the time was up") == 15
    cases = json.loads((tmp_path / "gpu.json").read_text())["cases"]
    assert ["candidates" in case for case in cases] == [True] * 3 + [False] * 15


def test_where_nothing_was_measured_the_exit_code_is_1(machine, tmp_path):
    done = machine(0, jax=device("gpu", tf32=True), torch=device("gpu", tf32=True))
    assert GPU(out=tmp_path / "gpu.json").run() == 1
    assert not done


def test_without_a_gpu_small_networks_are_measured_and_tf32_is_not(machine, tmp_path, capsys):
    done = machine(jax=device("cpu", tf32=False), torch=device("cpu", tf32=False))
    assert GPU(out=tmp_path / "gpu.json").run() == 0
    assert "There is no GPU" in capsys.readouterr().out
    assert [plan.precision for plan, _ in done] == ["bfloat16"] * 2 + ["float32"] * 6
    assert all(plan.candidates == CANDIDATES[:2] for plan, _ in done)
    assert {str(case) for _, case in done} == {"inference 1x64x64", "training 2x64x64"}


@pytest.mark.parametrize(
    ("gpu", "message"),
    [
        (GPU(budget=0), "--budget 0: give seconds, more than 0"),
        (GPU(out=Path("gpu.txt")), "--out gpu.txt: give a name that ends in .json"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(machine, capsys, tmp_path, monkeypatch, gpu, message):
    monkeypatch.chdir(tmp_path)
    machine(jax=device("cpu", tf32=False))
    assert exit_code(gpu.run) == 2
    assert capsys.readouterr().err == f"bench: {message}\n"
    assert not list(tmp_path.iterdir())


def test_a_framework_that_misses_the_gpu_is_told(machine, capsys, tmp_path):
    machine(jax=device("cpu", tf32=False), torch=device("gpu", tf32=True))
    assert exit_code(GPU(out=tmp_path / "gpu.json").run) == 2
    assert "only torch runs on the GPU" in capsys.readouterr().err


def test_the_table():
    environment = Environment({"gpus": ["a GPU"]}, {"jax": "1.2"}, {})
    rows = [
        Row(OURS, "tf32", CASE, report()),
        Row(NNUNET, "bfloat16", CASE, report(failed=CANDIDATES[2:])),
        Row(NNUNET, "float32", CASE, None),
    ]
    lines = to_markdown(environment, rows).splitlines()
    assert lines == [
        "a GPU; jax 1.2",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"| {' | '.join(('---',) * 9)} |",
        f"| {OURS} | inference 1x16x16 | tf32 | 1.0 ms | 0.50 (0.50 to 0.50) | 4.0 ms | 2.0 ms | 2.00 GB | 2.00 GB |",
        f"| {NNUNET} | inference 1x16x16 | bfloat16 | 1.0 ms | 0.25 (0.25 to 0.25) | 4.0 ms | - | 2.00 GB | 2.00 GB |",
        f"| {NNUNET} | inference 1x16x16 | float32 | left out: the time was up |  |  |  |  |  |",
        "",
        f"{NNUNET}, inference 1x16x16, bfloat16: {CANDIDATES[2]} did not run: out of memory",
    ]
