"""What JAX and PyTorch say of a device that they cannot use, as one line that says what to do.

Neither has types for it, but for a lack of memory: what is told apart here are the texts of jaxlib, libtpu, CUDA and
torch.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator

from unet_core.errors import first_line, shown

_ON_CPU = "JAX_PLATFORMS=cpu computes on the CPU"
_WITHOUT_GPU = "CUDA_VISIBLE_DEVICES= (empty) makes PyTorch compute on the CPU, JAX_PLATFORMS=cpu JAX"
_INSTEAD = "use a smaller network or smaller pictures, or a device with more memory"


def of_device(error: BaseException, relief: str = _INSTEAD) -> str | None:
    """What a framework says of its devices, or what it was that caused this error, as one line; None: nothing.

    Args:
        error: any.
        relief: what helps where memory is short.
    """
    for cause in _chain(error):
        if isinstance(cause, RuntimeError):
            text = str(cause)
            for pattern, line in _LINES:
                match = re.search(pattern, text, re.IGNORECASE | re.DOTALL)
                if match is not None:
                    return line(match, cause).replace(_RELIEF, relief)
        if _is_jax_without_platform(cause):
            asked = shown(os.environ.get("JAX_PLATFORMS", ""))
            return f"JAX finds no device for JAX_PLATFORMS={asked}; leave that out, and it takes those that there are"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It, and what it says to be caused by."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _is_jax_without_platform(error: BaseException) -> bool:
    """Whether it is the assertion of JAX that does not hold where no plugin is there for any platform asked for."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    asked = os.environ.get("JAX_PLATFORMS")
    if bridge is None or not asked or not isinstance(error, AssertionError) or error.args:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return "/jax/_src/" in frames[-1].filename and not bridge.backends_are_initialized()


_Line = Callable[[re.Match[str], BaseException], str]
_RELIEF = "\0"


def _memory(_: re.Match[str], error: BaseException) -> str:
    return f"not enough memory on the device: {shown(str(error).strip().splitlines()[0]).rstrip('. ')}; {_RELIEF}"


def _in_use(match: re.Match[str], _: BaseException) -> str:
    process = f"process {match['pid']}" if match["pid"] else "another process"
    find = "end it, or wait for it" if match["pid"] else "sudo lsof -w /dev/accel* /dev/vfio/* names it"
    return f"the TPU is in use by {process}: {find}; {_ON_CPU}"


def _busy(_: re.Match[str], error: BaseException) -> str:
    return f"the device is in use by another process: {first_line(error)}; end that, or wait for it; {_WITHOUT_GPU}"


def _forbidden(match: re.Match[str], _: BaseException) -> str:
    return f"{match['path']}: permission denied: this user may not use the TPU; be in the device's group, or use sudo"


def _versions(match: re.Match[str], _: BaseException) -> str:
    platform = match["platform"] or "tpu"
    plugin, extra = {"tpu": ("libtpu", "tpu"), "cuda": ("JAX's CUDA plugin", "cuda13")}.get(
        platform, (f"JAX's plugin for {platform}", platform)
    )
    return (
        f"{plugin} and jaxlib are of versions that do not go together (PJRT {match['plugin']} and {match['jaxlib']}): "
        f"install both as one, pip install -U 'jax[{extra}]'"
    )


def _jaxlib(_: re.Match[str], error: BaseException) -> str:
    return f"jax and jaxlib do not go together: {first_line(error)}; install both as one, pip install -U jax"


def _unknown(match: re.Match[str], _: BaseException) -> str:
    return (
        f"JAX has no platform {shown(match['name'])} here, but {shown(match['known'])}: mend JAX_PLATFORMS, or install "
        "what brings it (pip install 'jax[cuda13]' for NVIDIA GPUs)"
    )


def _no_libtpu(_: re.Match[str], __: BaseException) -> str:
    return f"JAX is asked for a TPU, but libtpu is not installed: pip install 'jax[tpu]' on a TPU VM; or {_ON_CPU}"


def _no_backend(match: re.Match[str], _: BaseException) -> str:
    why = first_line(RuntimeError(re.sub(r"\s*\((?:set|you may need).*", "", match["why"], flags=re.DOTALL)))
    return f"JAX cannot use the platform {shown(match['name'])}: {why}; {_ON_CPU}"


def _driver(match: re.Match[str], _: BaseException) -> str:
    found = f" (it is for CUDA {int(match['cuda']) // 1000}.{int(match['cuda']) % 1000 // 10})" if match["cuda"] else ""
    return f"the NVIDIA driver is too old{found}: update it, or install a framework for its CUDA; {_WITHOUT_GPU}"


def _no_gpu(_: re.Match[str], error: BaseException) -> str:
    return f"PyTorch cannot use the GPU: {first_line(error)}; {_WITHOUT_GPU}"


_LINES: tuple[tuple[str, _Line], ...] = (
    (r"RESOURCE_EXHAUSTED|out of memory|can't allocate memory|_ALLOC_FAILED", _memory),
    (r"already in use by (?:another process|process with pid (?P<pid>\d+))", _in_use),
    (r"device or resource busy|devices?\(?s?\)? is/are busy|busy or unavailable", _busy),
    (r"(?P<path>/dev/(?:accel|vfio)\S*?):? permission denied", _forbidden),
    (
        r"(?:backend '(?P<platform>\w+)'.*?)?Mismatched PJRT plugin PJRT API version \((?P<plugin>[\d.]+)\) and "
        r"framework PJRT API version \(?(?P<jaxlib>[\d.]+)\)",
        _versions,
    ),
    (r"^jaxlib (?:is )?version", _jaxlib),
    (r"Backend '(?P<name>[^']+)' is not in the list of known backends: \[(?P<known>.*?)\]", _unknown),
    (r"Failed to open \S*libtpu\.so|module 'libtpu' has no attribute", _no_libtpu),
    (r"driver on your system is too old(?: \(found version (?P<cuda>\d+)\))?|driver version is insufficient", _driver),
    (r"(?:Unable to initialize backend|Backend) '(?P<name>[^']+)'(?: failed to initialize)?: (?P<why>.*)", _no_backend),
    (r"^Unknown backend:? '?(?P<name>\w+)'? ?(?P<why>.*)", _no_backend),
    (r"No CUDA GPUs are available|no CUDA-capable device|no kernel image is available|CUDA unknown error", _no_gpu),
)
"""What is searched for in an error's text, the special before the general, and the line that is made of it."""
