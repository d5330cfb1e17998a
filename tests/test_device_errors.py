"""What frameworks say of devices is one line with exit code 2, whatever the command; other errors stay errors."""

import os
import re
import subprocess
import sys

import pytest

from unet_cli.main import Command, _parse, main
from unet_core.device_errors import of_device
from unet_core.errors import CheckpointError

TEXTS = [  # of jaxlib, libtpu and torch, and what the line is
    (
        "Unable to initialize backend 'tpu': INTERNAL: Failed to open libtpu.so: libtpu.so: cannot open "
        "shared object file: No such file or directory (set JAX_PLATFORMS='' to automatically choose an "
        "available backend)",
        r"libtpu is not installed: pip install 'jax\[tpu\]'",
    ),
    (
        "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process with pid "
        "176028. Not attempting to load libtpu.so in this process.",
        r"the TPU is in use by process 176028: end it, or wait for it",
    ),
    (
        'libtpu.so already in use by another process probably owned by another user. Run "$ sudo lsof -w '
        '/dev/accel0" to figure out which process is using the TPU.',
        r"the TPU is in use by another process: sudo lsof",
    ),
    (
        "Unable to initialize backend 'tpu': UNKNOWN: TPU initialization failed: open(/dev/vfio/0): Device "
        "or resource busy: Couldn't open iommu group /dev/vfio/0",
        r"in use by another process: .*Device or resource busy",
    ),
    (
        "Unable to initialize backend 'tpu': INTERNAL: open(/dev/accel0): Operation failed: /dev/accel0: "
        "Permission denied",
        r"^/dev/accel0: permission denied: this user may not use the TPU",
    ),
    (
        "Unable to initialize backend 'tpu': INVALID_ARGUMENT: Mismatched PJRT plugin PJRT API version "
        "(0.47) and framework PJRT API version 0.54).",
        r"^libtpu and jaxlib .*\(PJRT 0\.47 and 0\.54\): .*pip install -U 'jax\[tpu\]'$",
    ),
    (
        "Unable to initialize backend 'cuda': INVALID_ARGUMENT: Mismatched PJRT plugin PJRT API version "
        "(0.54) and framework PJRT API version 0.51).",
        r"^JAX's CUDA plugin and jaxlib .*'jax\[cuda13\]'$",
    ),
    (
        "Unable to initialize backend 'tpu': UNKNOWN: TPU initialization failed: No ba16c7433 device "
        "found. (set JAX_PLATFORMS='' to automatically choose an available backend)",
        r"^JAX cannot use the platform tpu: UNKNOWN: TPU initialization failed: No ba16c7433 device "
        r"found\.; JAX_PLATFORMS=cpu computes on the CPU$",
    ),
    (
        "Unable to initialize backend 'foo': Backend 'foo' is not in the list of known backends: ['cpu', "
        "'tpu']. (set JAX_PLATFORMS='' to automatically choose an available backend)",
        r"^JAX has no platform foo here, but 'cpu', 'tpu'",
    ),
    (
        "Unknown backend: 'gpu' requested, but no platforms that are instances of gpu are present. "
        "Platforms present are: cpu",
        r"^JAX cannot use the platform gpu: requested, but no platforms",
    ),
    (
        "Backend 'cuda' failed to initialize: FAILED_PRECONDITION: No visible GPU devices.. Available "
        "backends are ['cpu']",
        r"^JAX cannot use the platform cuda: .*No visible GPU devices",
    ),
    (
        "jaxlib is version 0.3.25, but this version of jax requires version >= 0.4.19.",
        r"^jax and jaxlib do not go together",
    ),
    (
        "jaxlib version 0.11.0 is newer than and incompatible with jax version 0.10.2. Please update your "
        "jax and/or jaxlib packages.",
        r"^jax and jaxlib do not go together",
    ),
    (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used "
        "21.90G of 7.48G hbm. Exceeded hbm capacity by 14.42G.\n\nTotal hbm usage >= 22.47G:\n    "
        "reserved        530.00M",
        r"^not enough memory on the device: RESOURCE_EXHAUSTED: .*Used 21\.90G of 7\.48G hbm.*; use less$",
    ),
    (
        "RESOURCE_EXHAUSTED: Out of memory allocating 34359738368 bytes.",
        r"^not enough memory on the device",
    ),
    (
        "INTERNAL: CUDA error: Failed call to cuInit: CUDA driver version is insufficient for CUDA runtime version",
        r"^the NVIDIA driver is too old: update it",
    ),
    (
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which "
        "12.00 MiB is free. Including non-PyTorch memory, this process has 79.09 GiB memory in use. Of the "
        "allocated memory 78.00 GiB is allocated by PyTorch",
        r"^not enough memory on the device: CUDA out of memory\. Tried to allocate 20\.00 MiB.*; use",
    ),
    (
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)",
        r"^not enough memory on the device",
    ),
    (
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver "
        "by downloading and installing a new version from the URL: "
        "http://www.nvidia.com/Download/index.aspx",
        r"^the NVIDIA driver is too old \(it is for CUDA 11\.4\): update it",
    ),
    (
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be "
        "asynchronously reported",
        r"^the device is in use by another process",
    ),
    (
        "No CUDA GPUs are available",
        r"^PyTorch cannot use the GPU: No CUDA GPUs are available; CUDA_VISIBLE_DEVICES=",
    ),
    (
        "CUDA error: no kernel image is available for execution on the device\nmore",
        r"^PyTorch cannot use the GPU",
    ),
]


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=range(len(TEXTS)))
def test_each_text_is_one_line_that_says_what_to_do(text, said):
    line = of_device(RuntimeError(text), "use less")
    assert line is not None
    assert re.search(said, line), line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["shape mismatch", "INTERNAL: the compiler is confused", "size of tensor a (3)", ""])
def test_other_errors_are_none_of_a_device(text):
    assert of_device(RuntimeError(text)) is None
    assert of_device(ValueError(text)) is None
    assert of_device(AssertionError(text)) is None


def test_what_caused_an_error_is_found():
    """A file is not damaged because the device that it was read for is in use."""
    error = CheckpointError("a: not a sound Orbax checkpoint")
    error.__cause__ = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    assert of_device(error) is not None
    assert of_device(CheckpointError("a: RESOURCE_EXHAUSTED")) is None, "the control: a file's own text"


COMMANDS = {
    "inspect": ["a"],
    "convert": ["a", "b.pt"],
    "verify": ["a", "b"],
    "compare": ["a", "--out", "c"],
    "train": ["--out", "run", "--backend", "jax", "--data", "synthetic"],
    "predict": ["a", "b.png", "--out", "c"],
    "eval": ["a", "--data", "synthetic"],
    "bench": [],
}


def errors():
    yield RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 34359738368 bytes.")
    if "jax" in sys.modules:
        yield sys.modules["jax"].errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM (47.20G).")
    if "torch" in sys.modules:
        yield sys.modules["torch"].OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_saves_memory(name, monkeypatch, capsys):
    for package in ("jax", "torch"):
        pytest.importorskip(package)
    command = type(_parse([name, *COMMANDS[name]]))
    assert main([name, "--help"]) == 0
    options = set(re.findall(r"--(?:\{[^}]*\})?[a-z][a-z0-9-]*", capsys.readouterr().out.replace("-no-", "-")))
    for error in errors():

        def fail(self, error=error):
            raise error

        monkeypatch.setattr(command, "run", fail)
        assert main([name, *COMMANDS[name]]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("unet: not enough memory on the device: ")
        named = set(re.findall(r"--[a-z][a-z0-9-]*", err))
        assert named - {"--no-verify"} <= options, "an option that it does not have"
        assert named


def test_only_jax_is_told_of_what_jax_alone_has():
    jax, torch = (_parse(["train", "--out", "r", "--data", "d", "--backend", name]) for name in ("jax", "torch"))
    assert "--remat" in jax.relief
    assert "--mesh" in jax.relief
    assert "--remat" not in torch.relief


def test_every_command_that_computes_has_advice():
    assert all(hasattr(command, "relief") for command in Command.__args__)


def test_an_error_of_ours_keeps_its_traceback(monkeypatch):
    def fail(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(_parse(["inspect", "a"])), "run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["inspect", "a"])


@pytest.mark.parametrize(
    ("platforms", "said"),
    [
        pytest.param("foo", r"JAX has no platform foo here, but 'cpu', 'tpu'", marks=pytest.mark.slow),
        ("cuda", r"JAX finds no device for JAX_PLATFORMS=cuda; leave that out"),
    ],
)
def test_jaxs_own_error_is_one_line(platforms, said, tmp_path):
    """In a process of its own, for JAX chooses its platforms once."""
    pytest.importorskip("jax")
    code = (
        "import sys; from unet_cli.main import main\n"
        "sys.exit(main(['train', '--backend', 'jax', '--data', 'synthetic', '--out', 'run', '--features', '2', '3',"
        " '--crop', '16', '--steps', '1']))"
    )
    environment = {**os.environ, "JAX_PLATFORMS": platforms}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"unet: {said}.*\n", done.stderr), done.stderr
    assert not (tmp_path / "run").exists()


def test_a_state_is_not_passed_over_because_the_device_is_full(tmp_path):
    pytest.importorskip("torch")
    from unet_torch.training.states import States

    states = States(tmp_path, 3, 0)
    states.save(1, {"step": 1})

    def full(_):
        raise sys.modules["torch"].OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(RuntimeError, match="out of memory"):
        states.newest(full)


@pytest.mark.parametrize(("visible", "code"), [(None, "refused"), ("", "cpu"), ("0", "refused")])
def test_an_old_driver_is_no_reason_to_compute_on_the_cpu_unasked(visible, code, monkeypatch):
    torch = pytest.importorskip("torch")
    import warnings

    from unet_core.errors import RunError
    from unet_torch.device import chosen_device

    def unavailable():
        text = "CUDA initialization: The NVIDIA driver on your system is too old (found version 12020). Please update"
        warnings.warn(text, UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if code == "cpu":
        assert chosen_device().type == "cpu"
        return
    with pytest.raises(RunError, match=r"^the NVIDIA driver is too old \(it is for CUDA 12\.2\): update it"):
        chosen_device()


def test_a_machine_without_a_gpu_computes_on_the_cpu(monkeypatch):
    torch = pytest.importorskip("torch")
    from unet_torch.device import chosen_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device().type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device().type == "cuda"
