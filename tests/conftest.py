"""Tiny networks with statistics that training left behind; where SHAPES is set, all annotated shapes are checked."""

import gc
import os
import shutil
import signal
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# The frameworks' many objects live as long as the tests: a collector that looks through them less often saves time.
gc.set_threshold(100_000, 50, 100)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # gcsfs reads it when it is imported
# The tests' tiny networks run once each: what LLVM's passes gain is not worth their seconds.
FLAGS = ["--xla_backend_optimization_level=0"]
if find_spec("jaxlib") and version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # nor is what the newer emitters gain, where there is a choice
    FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")  # nor compiling such programs in parts
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores: torch's threads would wait for each other longer than a tiny network takes.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many tests compile the same programs, operations that run by themselves too, some of them in processes of their own.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jaxtyping
from jaxtyping import install_import_hook

if os.environ.get("SHAPES"):  # a tenth of the tests' time
    install_import_hook(["unet_core.graph.resampling", "unet_torch", "unet_jax", "conversion"], "beartype.beartype")

import numpy as np
import pytest
from hypothesis import given, settings

from tests import buckets
from unet_core.config import UNetConfig
from unet_core.graph.canonical import tensor_specs
from unet_core.graph.initial import initial_tensors
from unet_core.training.history import read_history

# The same examples every time, so that a red run can be repeated; no deadline on a machine that others use too.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("repeatable")


def pytest_sessionfinish(session):
    """Where everything that the tests need has been installed, one that is skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


TINY = UNetConfig(in_channels=3, out_channels=2, features=(4, 6, 8))
SHALLOW = UNetConfig(in_channels=3, out_channels=2, features=(4, 6))
"""For what its depth has no part in: JAX traces and compiles every level."""

BROWSER_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def trained_tensors(config: UNetConfig, seed: int = 0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """A network's tensors as some training would leave them: no constant, no zero mean, no unit variance."""
    rng = np.random.default_rng(seed)
    tensors = initial_tensors(config, seed)
    for key, spec in tensor_specs(config).items():
        if key.endswith("num_batches_tracked"):
            tensors[key] = np.array(rng.integers(1, 1000), np.int64)
            continue
        if spec.fan_in is None:
            low, high = (0.5, 1.5) if key.endswith((".weight", ".running_var")) else (-0.3, 0.3)
            tensors[key] = rng.uniform(low, high, spec.shape)
        tensors[key] = tensors[key].astype(dtype)
    return tensors


def batch(config: UNetConfig, n: int = 1, height: int = 16, width: int = 16, dtype: type = np.float32) -> np.ndarray:
    """A random batch, NHWC."""
    shape = (n, height, width, config.in_channels)
    return np.random.default_rng(n * height + width).standard_normal(shape).astype(dtype)


def few(cases, *quick):
    """Parameters of a test, of which the quick tests take those of these names, and the slow ones all others."""
    named = cases.items() if isinstance(cases, dict) else ((case, case) for case in cases)
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=str(name),
            marks=() if name in quick else pytest.mark.slow,
        )
        for name, case in named
    ]


def by_examples(quick, slow, *strategies, **named):
    """A property of drawn values, which the quick tests try on a few and the slow ones on many."""

    def of(holds):
        @pytest.mark.parametrize("examples", few([quick, slow], quick))
        def test(examples):
            settings(max_examples=examples)(given(*strategies, **named)(holds))()

        test.__name__, test.__doc__ = holds.__name__, holds.__doc__
        return test

    return of


mostly_torch = pytest.mark.parametrize("backend", few(["torch", "jax"], "torch"), indirect=True)
"""For what the code that both backends share does: the quick tests try it with the one that has nothing to compile."""


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    return trained_tensors(TINY)


@pytest.fixture
def x64():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield


@pytest.fixture
def untraced():
    """What was traced with a constant changed, or without, is not used again for the same shapes."""
    jax = pytest.importorskip("jax")
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def unchecked_shapes():
    """While code is exported, its sizes are symbols, which annotations of plain integers refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium is not installed" if program is None else "chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (*BROWSER_OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.get("about:blank")  # not the browser's own first page, which loads what it needs
    yield found
    found.quit()


@pytest.fixture(scope="module")
def one_thread():
    """Torch's threads wait for each other longer than a tiny network takes."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_thread_at_most(request):
    """The same, where torch is installed."""
    if find_spec("torch"):
        request.getfixturevalue("one_thread")


@pytest.fixture
def small_proof(monkeypatch):
    """Proofs run on one small input of random numbers instead of two."""
    import conversion.proof.proof

    samples = conversion.proof.proof.samples
    monkeypatch.setattr(
        conversion.proof.proof, "samples", lambda config, **given: samples(config, **{**given, "size": (4, 4)})[:1]
    )


@pytest.fixture(params=["torch", "jax"])
def backend(request) -> str:
    """Each framework that is installed."""
    pytest.importorskip(request.param)
    return request.param


def validations(run: Path) -> np.ndarray:
    """What each validation of a run found: its loss, and pixels of each class that were taken for each."""
    found = [entry["validation"] for entry in read_history(run / "history.jsonl") if "validation" in entry]
    return np.array([[entry["loss"], *np.ravel(entry["confusion"])] for entry in found])


@pytest.fixture(scope="session")
def cells(tmp_path_factory) -> Path:
    """A small data folder."""
    pytest.importorskip("PIL")
    from unet_core.data.synthetic import Synthetic, write_folder

    folder = tmp_path_factory.mktemp("data") / "cells"
    write_folder(Synthetic(count=6, size=32), folder)
    return folder


@pytest.fixture(scope="session")
def gcs_server():
    """The address of an emulator of Google's store."""
    pytest.importorskip("gcsfs")
    with buckets.gcs() as address:
        yield address


@pytest.fixture(scope="session")
def s3_server():
    """The address of a server that answers as Amazon's store does."""
    pytest.importorskip("s3fs")
    with buckets.s3() as address:
        yield address


@pytest.fixture
def gs_bucket(gcs_server, monkeypatch) -> str:
    """A bucket at the emulator."""
    for name, value in buckets.gcs_environment(gcs_server).items():
        monkeypatch.setenv(name, value)
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})  # which the variable alone says to new processes
    return "gs://bucket"


@pytest.fixture
def s3_bucket(s3_server, monkeypatch) -> str:
    """A bucket at moto's server."""
    for name, value in buckets.s3_environment(s3_server).items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem().mkdirs("bucket", exist_ok=True)
    return "s3://bucket"


@pytest.fixture
def heeded():
    """A shell's background job, which the tests may be, ignores Ctrl-C from its start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def small_graph_proof(monkeypatch):
    """Proofs of networks that were read from code run on one small input of random numbers instead of two."""
    import conversion.proof.proof

    samples = conversion.proof.proof.samples
    monkeypatch.setattr(
        conversion.proof.proof, "samples", lambda config, **given: samples(config, **{**given, "size": (16, 12)})[:1]
    )
