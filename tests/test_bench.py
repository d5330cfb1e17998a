"""`unet bench` and `python -m unet_compare.speed`: what they time, how they judge it, and who may fail."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from unet_cli.main import _parse
from unet_cli.main import main as unet
from unet_compare.speed import bench as speed
from unet_compare.speed import table
from unet_compare.speed.arguments import parsed
from unet_compare.speed.cores import handover
from unet_compare.speed.plan import BY_NAME, CANDIDATES, Candidate, Case, Plan, Setup
from unet_compare.speed.process import OutOfTimeError, Worker, WorkerError
from unet_compare.speed.report import Environment, Found, Memory, judged
from unet_compare.speed.subject import Subject, stored
from unet_compare.speed.worker import batches, reason, resident
from unet_core import UNetConfig
from unet_core.graph import Graph, Node
from unet_core.graph.family import graph
from unet_core.graph.summary import operations

ROOT = Path(__file__).parents[1]
TINY = ["--features", "2", "3", "--rounds", "2", "--calls", "1"]
OURS, EAGER = Candidate("jax", ("ours",)), Candidate("torch", ("eager",))
CASE = Case("inference", 1, 8, 8)
SMALL = Subject((2, 3))
GRAPH = graph(SMALL.config)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(features=(4, 6, 8)),
        UNetConfig(features=(4, 6, 8), out_channels=3, decoder_features=(5, 7), middle_features=(3, 9)),
        UNetConfig(features=(4, 6), upsampling="transposed", upsampled_features=(5,)),
    ],
    ids=["plain", "widths", "transposed"],
)
@pytest.mark.parametrize("training", [False, True])
def test_operations_are_those_that_torch_counts(config, training):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    import unet_torch

    model = unet_torch.UNet.from_config(config, seed=0).train(training)
    with FlopCounterMode(display=False) as counter:
        logits = model.logits(torch.zeros(2, 3, 18, 13))
        if training:
            logits.sum().backward()
    assert operations(graph(config), 2, (18, 13), training=training) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds 0: give a whole number from 1 up"),
        (["--calls", "-1"], "--calls -1: give a whole number from 1 up"),
        (["--calls", "x"], "invalid"),
        (["--precision", "float16"], "float16"),
        (["--inference", "1x2"], "--inference 1x2: give batch, height and width as BxHxW, for example 1x256x256"),
        (["--inference", "0x64x64"], "--inference 0x64x64: a batch has one picture at least"),
        (
            ["--inference", "1x8x64"],
            "--inference 1x8x64: an input of 8x64 is too small: 4 max-pools need at least 16x16",
        ),
        (["--training", "1x16x16"], "--training 1x16x16: crop 16: is too small for 5 levels; 32 will do"),
        (["--training", "2x64x32"], "--training 2x64x32: training takes square crops"),
        (["--training", "--inference"], "nothing to measure: give --inference or --training"),
        (["--features", "3"], "features: 2 to 32 levels are needed, got 1"),
        (["--candidates", "jax", "torch:fast"], "--candidates torch:fast: there is no such candidate; there are jax, "),
        (["--growth"], "--growth: is drawn beside the JSON file; give --out FILE.json as well"),
        (["--out", "speed.txt"], "--out speed.txt: give a name that ends in .json"),
        (["--out", "nowhere/speed.json"], "nowhere/speed.json: the folder nowhere does not exist; make it first"),
        (["--fast"], "--fast"),
        (["--kwargs", "a=1"], "--kwargs: is for --module"),
        (["--checkpoint", "gone.pt"], "gone.pt: "),
        (["--module", "gone.py:UNet"], "gone.py: no such file"),
    ],
)
@pytest.mark.parametrize("main", [lambda args: unet(["bench", *args]), speed.main], ids=["unet", "python"])
def test_bad_usage_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, main, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--inference", "1x32x32", "2x32x48", "--training", "--growth", "--out", "a.json"],
        ["--features", "2", "3", "--precision", "bfloat16", "--candidates", "jax", "torch:eager", "--rounds", "9"],
    ],
)
def test_both_command_lines_are_the_same(arguments):
    bench = _parse(["bench", *arguments])
    plan = parsed(Plan, "python -m unet_compare.speed", arguments)
    assert vars(bench) == vars(plan)


def test_both_helps_tell_every_option(capsys):
    assert unet(["bench", "--help"]) == 0
    box = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        speed.main(["--help"])
    plain = capsys.readouterr().out
    for option in vars(Plan()):
        assert f"--{option}" in box
        assert f"--{option}" in plain
    assert "Example: unet bench " in box
    assert "What is timed is a whole update. (default: 2x256x256 2x128x128)" in " ".join(plain.split())


def test_candidates_are_asked_for_by_name_or_framework():
    assert Plan().chosen == CANDIDATES
    assert [one.name for one in Plan(candidates=("torch:eager", "jax")).chosen] == [
        "jax:plain",
        "jax:ours",
        "torch:eager",
    ]


def test_the_low_resolution_in_torch_is_timed_by_name_alone_and_never_the_reference():
    low = BY_NAME[1].name
    assert not set(BY_NAME) & {*Plan().chosen, *Plan(candidates=("torch",)).chosen}
    assert [one.name for one in Plan(candidates=(low, "torch:eager")).chosen] == ["torch:eager", low]
    assert judged(CASE, GRAPH, [found("torch:eager", 2.0), found(low, 1.0)], {}).reference == "torch:eager"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("torch:compile+channels_last+frozen", {("inference", "cpu"), ("inference", "gpu")}),
        ("torch:compile+max-autotune+channels_last", {("inference", "gpu"), ("training", "gpu")}),
    ],
)
def test_some_candidates_are_for_some_cases(name, where):
    (candidate,) = Plan(candidates=(name,)).chosen
    found = {(kind, at) for kind in ("inference", "training") for at in ("cpu", "gpu") if candidate.runs(kind, at)}
    assert found == where


def test_growth_adds_cases_once_and_stops_earlier_on_a_cpu():
    plan = Plan(inference=("1x256x256",), training=(), growth=True)
    assert [str(case) for case in plan.cases("cpu")] == [
        *(f"inference {size}" for size in ("1x256x256", "1x128x128", "1x512x512", "1x1024x1024")),
        *(f"inference {batch}x256x256" for batch in (2, 4, 8)),
        *(f"training 2x{size}x{size}" for size in (128, 256, 512)),
        *(f"training {batch}x256x256" for batch in (1, 4, 8)),
    ]
    assert set(plan.cases("gpu")) - set(plan.cases("cpu")) == {("training", 2, 1024, 1024)}


def test_tf32_is_refused_where_no_gpu_has_it(fake, capsys):
    fake()
    arguments = [*TINY, "--inference", "1x8x8", "--training", "--candidates", "jax:ours"]
    assert speed.main([*arguments, "--precision", "tf32"]) == 2
    assert capsys.readouterr().err == "bench: --precision tf32: a GPU has it; jax runs on cpu\n"
    assert speed.main([*arguments, "--precision", "float32"]) == 0


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("tf32", True), ("bfloat16", True)])
def test_on_a_gpu_both_frameworks_take_tf32_or_neither_does(monkeypatch, precision, allowed):
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    from unet_compare.speed import jax_backend, torch_backend

    gpu = Mock(
        jax.Device,
        platform="gpu",
        device_kind="A100",
        compute_capability="8.0",
        client=jax.devices()[0].client,
    )
    monkeypatch.setattr(jax_backend, "DEVICE", gpu)
    monkeypatch.setattr(torch_backend, "ON_GPU", True)
    before = jax.config.jax_default_matmul_precision
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    settings = cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32
    try:
        jax_backend.use(precision)
        torch_backend.use(precision)
        assert jax_backend.describe()["tf32"] == allowed
        assert products.allow_tf32 == cudnn.allow_tf32 == allowed
        assert cudnn.benchmark
        product = jax.jit(jax.numpy.matmul).lower(*[jax.ShapeDtypeStruct((2, 2), "float32")] * 2).as_text()
        assert ("HIGHEST" in product) != allowed
    finally:
        jax.config.update("jax_default_matmul_precision", before)
        cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32 = settings


@pytest.mark.parametrize(
    ("capability", "platform", "has"),
    [
        ("8.0", "gpu", True),
        ("12.0", "gpu", True),
        ("7.5", "gpu", False),
        ("gfx942", "gpu", False),
        (None, "cpu", False),
    ],
)
def test_which_devices_have_tf32(capability, platform, has):
    jax = pytest.importorskip("jax")
    from unet_jax.compilation import has_tf32

    assert has_tf32(Mock(jax.Device, platform=platform, compute_capability=capability)) == has


@pytest.mark.parametrize(("precision", "weights"), [("tf32", "float32"), ("bfloat16", "bfloat16")])
def test_an_update_is_in_the_precision_of_the_trainer(precision, weights):
    assert Setup(EAGER, CASE, SMALL, precision, 1).recipe.precision == weights


def test_the_peak_in_jax_is_what_lies_there_and_the_programs_temporaries(monkeypatch):
    pytest.importorskip("jax")
    from unet_compare.speed import jax_backend

    job = jax_backend.Job(Setup(OURS, CASE, SMALL, "float32", 1))
    job.call(job.placed(next(batches(CASE, job.channels, 0, 1))))
    assert job.memory_peak() is None
    monkeypatch.setattr(jax_backend, "memory_used", lambda: 1000)
    assert job.memory_peak() == 1000 + job.program.memory_analysis().temp_size_in_bytes > 1000


def test_a_network_is_read_without_a_gpu_which_those_that_are_timed_see(monkeypatch):
    pytest.importorskip("torch")
    from conversion import modules
    from unet_compare.speed.subject import opened

    names = ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS")
    monkeypatch.setattr(modules, "read_module", lambda *_: [os.environ.get(name) for name in names])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert opened(None, FOREIGN, ()) == ["", "cpu"]
    assert [os.environ.get(name) for name in names] == ["3", None]


@pytest.mark.parametrize("case", [CASE, Case("training", 2, 16, 16)])
def test_a_setup_goes_through_json(case):
    setup = Setup(EAGER, case, SMALL, "bfloat16", 3)
    assert Setup.from_json(json.dumps(setup)) == setup


def found(name, *seconds, answer=(1.0, 2.0), handovers=None):
    framework, _, words = name.partition(":")
    candidate = Candidate(framework, tuple(words.split("+")))
    count = len(seconds)
    handovers = handovers or ((None, None),) * count
    return Found(candidate, seconds, (1e9,) * count, handovers, 0.5, Memory(100, 1_000, 5_000), answer)


def test_rounds_tell_whether_the_cores_were_near(capsys):
    """Beside the quickest handover of all candidates, whose rounds are at other times."""
    moved = found("jax:ours", 0.9, 0.6, 0.7, handovers=((3.0, 3.1), (1.8, 1.9), (1.8, 3.0)))
    torch = found("torch:eager", 0.8, 0.8, 0.9, handovers=((1.8, 1.8), (1.7, 1.8), (2.9, 3.2)))
    report = judged(CASE, UNetConfig(features=SMALL.features), [moved, torch], {})
    assert [one.near for one in report.candidates] == [(False, True, None), (True, True, False)]
    table.print_case(report, "float32")
    assert "In 2 of 6 turns THE CORES WERE FURTHER APART" in capsys.readouterr().out


@pytest.mark.parametrize("handovers", [((1.8, 1.9), (1.8, 2.4)), ((None, None), (None, None))])
def test_nothing_is_said_of_cores_that_stay_where_they_are(handovers, capsys):
    """The control."""
    report = judged(CASE, UNetConfig(features=SMALL.features), [found("jax:ours", 0.9, 0.6, handovers=handovers)], {})
    table.print_case(report, "float32")
    assert "APART" not in capsys.readouterr().out


@pytest.mark.parametrize("allowed", [1, 2])
def test_what_one_core_hands_another_takes_time_and_its_thread_may_run_where_it_might(allowed):
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(usable)[:allowed])
        held = os.sched_getaffinity(0)
        found = handover()
        assert os.sched_getaffinity(0) == held
    finally:
        os.sched_setaffinity(0, usable)
    assert found is None if len(held) == 1 else 0.01 < found < 10_000


def test_the_fastest_of_torch_is_the_reference_and_ratios_are_of_the_same_round():
    report = judged(
        CASE,
        GRAPH,
        [found("jax:ours", 1.0, 4.0, 3.0), found("torch:eager", 3, 3, 3), found("torch:compile", 2.0, 2.0, 4.0)],
        {},
    )
    assert report.reference == "torch:compile"
    ours, _, itself = report.candidates
    assert (ours.median, ours.ratios, ours.ratio, ours.spread) == (3.0, (0.5, 2.0, 0.75), 0.75, (0.5, 2.0))
    assert itself.ratio == 1.0
    assert ours.fraction == report.operations / 3.0 / 1e9
    assert ours.call_bytes == 4_000


@pytest.mark.parametrize(
    ("names", "reference"),
    [(["jax:ours", "jax:plain"], "jax:plain"), (["jax:ours"], "jax:ours"), ([], None)],
)
def test_without_torch_the_plain_mirror_is_the_reference(names, reference):
    assert judged(CASE, GRAPH, [found(name, 1.0) for name in names], {}).reference == reference


@pytest.mark.parametrize(
    ("answer", "told"),
    [((1.0, 2.001), None), ((1.0, 2.2), "relative difference: 8.9e-02"), ((1.0, np.nan), "no number")],
)
def test_other_answers_than_the_references_are_told(capsys, answer, told):
    report = judged(CASE, GRAPH, [found("jax:ours", 1.0, answer=answer), found("torch:eager", 1.0)], {})
    table.print_case(report, "float32")
    out = capsys.readouterr().out
    assert ("jax:ours ANSWERS SOMETHING ELSE than torch:eager" in out) == (told is not None)
    assert told is None or told in out


@pytest.mark.parametrize("kind", ["inference", "training"])
def test_answers_of_a_network_that_draws_are_not_compared(capsys, kind):
    dropout = Node("dropout", "dropout", (GRAPH.nodes[-1].name,), {}, {"rate": 0.5, "kind": "maps"})
    drawing = Graph(GRAPH.in_channels, (*GRAPH.nodes, dropout), GRAPH.tensors)
    others = [found("jax:ours", 1.0, answer=(1.0, 2.2)), found("torch:eager", 1.0)]
    table.print_case(judged(CASE._replace(kind=kind), drawing, others, {}), "float32")
    out = capsys.readouterr().out
    assert ("It draws at random, so the answers are not compared." in out) == (kind == "training")
    assert ("ANSWERS SOMETHING ELSE" in out) == (kind == "inference")


@pytest.mark.parametrize("rich", [True, False])
def test_the_table(capsys, monkeypatch, rich):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    report = judged(
        CASE, GRAPH, [found("jax:ours", 1.5e-3), found("torch:eager", 1e-3)], {"torch:compile": "no C++ compiler"}
    )
    table.print_case(report, "float32")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in (
        "inference 1x8x8: 32.2 kFLOP; ratios to torch:eager",
        "jax:ours 1.5 ms 1.50 1.50 to 1.50 21.5 MFLOP/s 2% 0 MB 0.5 s",
        "torch:compile did not run: no C++ compiler",
    ):
        assert line.split() in lines


def test_different_devices_and_other_work_are_told(capsys):
    devices = {"jax": {"platform": "gpu", "device": "a GPU", "tf32": True}, "torch": {"platform": "cpu", "tf32": False}}
    machine = {"cpu": "a CPU", "cores": 2, "load": 1.5, "malloc": "glibc.malloc.hugetlb=1"}
    environment = Environment(machine, {"jax": "1.2"}, devices)
    table.print_environment(environment, "tf32")
    out = capsys.readouterr().out
    assert "a CPU, 2 cores; tf32; glibc.malloc.hugetlb=1\n" in out
    assert "jax 1.2 on a GPU, TF32\n" in out
    assert "DIFFERENT devices" in out
    assert "OTHERS COMPUTE HERE, TOO (load 1.5)" in out
    assert environment.platform == "gpu"


FAKE = """
import json, os, signal, sys
name, log = sys.argv[1], open({log!r}, "a")
for line in sys.stdin:
    message = json.loads(line)
    print(name, message["do"], message.get("number", ""), file=log, flush=True)
    if message.get("number") == 2:
        if name == "torch:compile": sys.exit("the last words")
        if name == "torch:compile+channels_last": os.kill(os.getpid(), signal.SIGKILL)
    replies = {{
        "describe": {{"platform": "cpu", "device": "cpu", "tf32": False}},
        "prepare": {{"compile_seconds": 1.0, "answer": [1.0], "memory": dict.fromkeys(("before", "rest", "peak"))}},
        "turn": {{"seconds": len(name) / 100, "matmul": 1e9, "handovers": [None, None]}},
    }}
    reply = replies[message["do"]]
    if name == {fails!r} or {fails!r} == "all" and message["do"] == "prepare": reply = {{"failed": "not installed"}}
    print(json.dumps(reply), flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Workers of both frameworks that only say that they worked; gives what they were asked, and the workers."""
    log, workers = tmp_path / "log", []

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in ("jax", "torch") or found(name))

    def install(fails=""):
        def command(worker, setup):
            workers.append(worker)
            return [sys.executable, "-S", "-c", FAKE.format(log=str(log), fails=fails), setup.candidate.name]

        monkeypatch.setattr(Worker, "command", command)
        return log, workers

    return install


def test_candidates_take_turns(fake):
    log, workers = fake()
    plan = Plan(features=(2, 3), inference=("1x8x8",), training=(), rounds=2, candidates=("jax:ours", "torch:eager"))
    assert speed.bench(plan) == 0
    assert log.read_text().splitlines()[-8:] == [
        *("jax:ours describe ", "torch:eager describe ", "jax:ours prepare ", "torch:eager prepare "),
        *("jax:ours turn 1", "torch:eager turn 1", "jax:ours turn 2", "torch:eager turn 2"),
    ]
    assert all(worker._process.returncode is not None for worker in workers)


def test_who_fails_or_dies_is_told_and_the_others_go_on(fake, tmp_path, capsys):
    fake("jax:plain")
    out = tmp_path / "speed.json"
    plan = Plan(features=(2, 3), inference=("1x8x8",), training=(), out=out)
    assert speed.bench(plan) == 0
    (case,) = json.loads(out.read_text())["cases"]
    assert [one["name"] for one in case["candidates"]] == [
        "jax:ours",
        "torch:eager",
        "torch:eager+channels_last",
        "torch:compile+channels_last+frozen",
    ]
    assert case["failed"] == {
        "jax:plain": "not installed",
        "torch:compile": "ended with exit code 1: the last words",
        "torch:compile+channels_last": "ended by SIGKILL, perhaps for want of memory",
    }
    assert "torch:compile did not run: ended with exit code 1: the last words" in capsys.readouterr().out


def test_where_none_runs_the_exit_code_is_1(fake, capsys):
    fake("all")
    assert speed.main([*TINY, "--inference", "1x8x8", "--training", "--candidates", "jax"]) == 1
    assert "jax:ours did not run: not installed" in capsys.readouterr().out


@pytest.mark.parametrize("main", [lambda args: unet(["bench", *args]), speed.main], ids=["unet", "python"])
def test_ctrl_c_ends_the_workers_and_writes_nothing(fake, tmp_path, monkeypatch, capsys, main):
    _, workers = fake()
    ask = Worker.ask

    def interrupted(worker, what, **more):
        if what == "turn":
            raise KeyboardInterrupt
        return ask(worker, what, **more)

    monkeypatch.setattr(Worker, "ask", interrupted)
    arguments = [*TINY, "--inference", "1x8x8", "--training", "--out", str(tmp_path / "speed.json")]
    assert main(arguments) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(workers) == 2 + 7
    assert all(worker._process.returncode is not None for worker in workers)
    assert not (tmp_path / "speed.json").exists()


PRINTS = """
import sys, types
import unet_compare.speed.worker
def describe():
    print("a library's greetings")
    return {"platform": "cpu"}
sys.modules["unet_compare.speed.torch_backend"] = types.SimpleNamespace(describe=describe, use=print)
sys.argv[1:] = sys.argv[-1:]
unet_compare.speed.worker.main()
"""


def test_candidates_run_the_code_of_their_caller(monkeypatch, tmp_path):
    tells = "import json, unet_compare; input(); print(json.dumps({'code': unet_compare.__path__[0]}))"
    monkeypatch.setattr(Worker, "command", lambda *_: [sys.executable, "-c", tells])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    with Worker(Setup(EAGER, CASE, SMALL, "float32", 1)) as worker:
        assert worker.ask("describe") == {"code": str(ROOT / "unet_compare")}


@pytest.mark.parametrize(("seconds", "answers"), [(0, False), (60, True)])
def test_after_the_deadline_no_answer_is_waited_for(monkeypatch, seconds, answers):
    told = "import json, time; input(); time.sleep(0.2); print(json.dumps({'done': True}), flush=True); time.sleep(60)"
    monkeypatch.setattr(Worker, "command", lambda *_: [sys.executable, "-S", "-c", told])
    with Worker(Setup(EAGER, CASE, SMALL, "float32", 1), time.monotonic() + seconds) as worker:
        if answers:
            assert worker.ask("describe") == {"done": True}
        else:
            with pytest.raises(OutOfTimeError):
                worker.ask("describe")
    assert worker._process.returncode is not None


def test_what_libraries_print_is_no_answer(monkeypatch):
    monkeypatch.setattr(Worker, "command", lambda _, setup: [sys.executable, "-c", PRINTS, json.dumps(setup)])
    with Worker(Setup(EAGER, CASE, SMALL, "float32", 1)) as worker:
        assert worker.ask("describe") == {"platform": "cpu"}
        with pytest.raises(WorkerError, match="has no attribute 'memory_used'"):
            worker.ask("prepare")


def test_batches_are_fresh_in_every_turn_and_the_same_for_all():
    one, other = batches(Case("training", 2, 8, 8), 3, 1, 2)
    again = next(batches(Case("training", 2, 8, 8), 3, 1, 1))
    later = next(batches(Case("training", 2, 8, 8), 3, 2, 1))
    np.testing.assert_array_equal(one.image, again.image)
    assert (one.image != other.image).any()
    assert (one.image != later.image).any()
    assert (one.image.shape, one.image.dtype, one.labels.dtype) == ((2, 8, 8, 3), np.float32, np.uint8)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: none found\n\nSet TORCHDYNAMO..."),
            "InvalidCxx",
        ),
        (RuntimeError("CUDA out of memory. Tried 1 GB.\nMore"), "CUDA out of memory. Tried 1 GB."),
        (MemoryError(), "MemoryError"),
    ],
)
def test_the_reason_is_one_line(error, line):
    assert reason(error).startswith(line)
    assert "\n" not in reason(error)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_memory_is_told_in_bytes():
    assert 10**7 < resident("VmRSS") <= resident("VmHWM")


def measure(tmp_path, *arguments, blocked=()):
    """Run the module in a process where, as in its workers, some packages cannot be imported."""
    for name in blocked:
        (tmp_path / f"{name}.py").write_text(f'raise ModuleNotFoundError("No module named {name!r}", name={name!r})\n')
    out = tmp_path / "speed.json"
    done = subprocess.run(
        [sys.executable, "-m", "unet_compare.speed", *TINY, "--out", str(out), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


EXTRAS = ("tyro", "grain", "tensorboardX", "PIL", "tifffile")


@pytest.mark.slow
def test_a_framework_is_timed(tmp_path):
    pytest.importorskip("torch")
    found, said = measure(tmp_path, "--inference", "1x8x8", "--training", "--candidates", "torch:eager", blocked=EXTRAS)
    ((one,),) = (case["candidates"] for case in found["cases"])
    assert len(one["seconds"]) == 2
    assert "ratios to torch:eager" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "none"),
    [(("--inference", "1x8x8"), "--training"), (("--training", "2x8x8"), "--inference")],
    ids=["inference", "training"],
)
def test_both_frameworks_are_timed_and_answer_the_same(tmp_path, case, none):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    chosen = ["jax:ours", "torch:eager+channels_last"]
    found, said = measure(tmp_path, *case, none, "--candidates", *chosen, blocked=EXTRAS)
    assert (found["schema"], set(found["devices"])) == (1, {"jax", "torch"})
    assert found["options"] == {"features": [2, 3], "precision": "float32", "rounds": 2, "calls": 1}
    assert {"python", "torch", "jax", "jaxlib", "flax", "optax", "numpy"} == set(found["versions"])
    (report,) = found["cases"]
    assert f"--{report['case']['kind']}" == case[0]
    assert (report["reference"], report["failed"]) == (chosen[1], {})
    assert [one["name"] for one in report["candidates"]] == chosen
    for one in report["candidates"]:
        assert len(one["seconds"]) == len(one["ratios"]) == 2
        assert one["difference"] < 1e-3
        assert min(one["matmuls"]) > one["operations_per_second"] > 0
        assert one["memory"]["peak"] is None or one["memory"]["peak"] >= one["memory"]["rest"] > 0
    assert report["candidates"][0]["compile_seconds"] > 0
    assert "ratios to torch:eager+channels_last" in said


FOREIGN = f"{ROOT / 'tests' / 'foreign_networks.py'}:Small"


@pytest.fixture
def foreign(unchecked_shapes):
    """A network of another project in a file, as its subject and its code."""
    pytest.importorskip("torch")
    from unet_compare.speed.subject import opened

    network = opened(None, FOREIGN, ())
    with stored(network, FOREIGN) as subject:
        yield subject, network


def test_a_network_that_code_builds_is_the_same_in_another_process(foreign):
    import torch

    subject, network = foreign
    again = Subject(*json.loads(json.dumps(subject))).checkpoint()
    assert subject.config == network.config
    assert again.tensors.keys() == network.tensors.keys()
    module = subject.own_code(again)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), network.tensors[name])
    assert next(module.parameters()).dtype == torch.float32


def test_operations_of_a_foreign_network_are_those_that_torch_counts(foreign):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    subject, network = foreign
    module = subject.own_code(network).train()
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(2, network.config.in_channels, 32, 24)).sum().backward()
    assert operations(subject.config, 2, (32, 24), training=True) == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["inference", "training"])
def test_a_foreign_network_is_timed_by_its_own_code(tmp_path, case):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    none = {"inference": "training", "training": "inference"}[case]
    arguments = [f"--{case}", "2x32x32", f"--{none}", "--module", FOREIGN]
    found, said = measure(tmp_path, *arguments, "--candidates", "jax:plain", "jax:ours", "torch:eager", blocked=EXTRAS)
    (report,) = found["cases"]
    assert report["failed"] == {}
    assert all(one["difference"] < 1e-3 for one in report["candidates"])
    assert f"torch runs {FOREIGN}" in said
    assert found["options"]["module"] == FOREIGN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("present", "blocked", "case", "reference"),
    [
        ("jax", ("torch",), ("--inference", "1x8x8", "--training"), "jax:plain"),
        (
            "torch",
            ("jax", "jaxlib", "flax", "optax", "orbax", "rich"),
            ("--training", "2x8x8", "--inference"),
            "torch:eager",
        ),
    ],
    ids=["jax", "torch"],
)
def test_one_framework_alone_is_timed(tmp_path, present, blocked, case, reference):
    pytest.importorskip(present)
    found, _ = measure(tmp_path, *case, "--candidates", reference, blocked=(*EXTRAS, *blocked))
    (case,) = found["cases"]
    assert set(found["devices"]) == {present}
    assert case["reference"] == reference
    assert case["failed"] == {}


@pytest.mark.parametrize(
    ("candidates", "failed"), [((), {}), (("jax:plain", "torch:eager"), {"torch:eager": "not installed"})]
)
def test_a_framework_that_is_missing_is_told_where_it_is_asked_for(fake, monkeypatch, candidates, failed):
    fake("torch:eager")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    plan = Plan(features=(2, 3), rounds=1, candidates=candidates)
    environment, missing = speed.look_around(plan, SMALL)
    report = speed.measured(plan, SMALL, SMALL.config, CASE, environment, missing)
    assert (set(environment.devices), set(missing)) == ({"jax"}, {name[:5] for name in failed})
    assert report.failed == failed


@pytest.mark.parametrize(
    ("installed", "message"),
    [(True, "jax: not installed; torch: not installed"), (False, "neither is installed")],
)
def test_no_framework_at_all_is_bad_input(monkeypatch, capsys, installed, message):
    refusal = 'input(); print(\'{"failed": "not installed"}\')'
    monkeypatch.setattr(Worker, "command", lambda *_: [sys.executable, "-S", "-c", refusal])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True if installed else None)
    assert speed.main(TINY) == 2
    assert capsys.readouterr().err == f"bench: this needs JAX or PyTorch: {message}\n"


def test_the_growth_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    Image = pytest.importorskip("PIL.Image")
    from unet_compare.speed.growth import by_batch, by_size, draw, fastest_of

    plan = Plan(inference=("3x64x64",), growth=True)
    reports = [
        judged(case, GRAPH, [found("jax:ours", 1.0), found("jax:plain", 2.0), found("torch:eager", 3.0)], {})
        for case in plan.cases("cpu")
    ]
    assert list(by_size(reports, "inference")) == [128, 256, 512, 1024]
    assert list(by_size(reports, "training")) == [128, 256, 512]
    assert list(by_batch(reports, "training")) == [1, 2, 4, 8]
    assert fastest_of(reports) == {"jax": "jax:ours", "torch": "torch:eager"}
    draw(reports, tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.size[0] == 1430


def test_the_graph_that_a_checkpoint_stores_is_timed_whatever_its_code_answers_first(tmp_path, unchecked_shapes):
    pytest.importorskip("torch")
    from foreign_networks import Dictionary

    from conversion.modules import read_module
    from unet_compare.speed.subject import opened
    from unet_core.checkpoints.safetensors_file import write

    network = read_module(Dictionary(), out="out")
    write(tmp_path / "second.safetensors", network)
    code = FOREIGN.replace("Small", "Dictionary")
    assert opened(tmp_path / "second.safetensors", code, ()).config == network.config


def state_of(worker):
    """As the system tells it: T is stopped."""
    return Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_candidate_stands_still_while_others_have_their_turn():
    """And goes on: the threads of a framework would slow down the others."""
    pytest.importorskip("jax")
    case = Case("inference", 1, 16, 16)
    setup = Plan(features=(2, 3)).setup(Candidate("jax", ("ours",)), case, Subject((2, 3)))
    with Worker(setup) as worker:
        for _ in range(2):
            assert worker.ask("describe")["platform"]
            deadline = time.monotonic() + 10
            while state_of(worker) != "T" and time.monotonic() < deadline:  # a signal takes its time
                time.sleep(0.01)
            assert state_of(worker) == "T"
