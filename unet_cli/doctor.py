"""`unet doctor`, `unet completion` and `unet --version`."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import tyro

from unet_core.installation import DISTRIBUTION, version_of
from unet_core.machine import jax_device, torch_device
from unet_core.version import VERSION

_OR_FILES = """
# Where nothing is known, which is an empty word, the names of files.
_unet() {
  _tyro_unet
  if [[ ${#COMPREPLY[@]} -eq 1 && -z ${COMPREPLY[0]} ]]; then COMPREPLY=(); fi
}
complete -o default -F _unet unet"""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what of this installation works: versions, devices, what is missing for what, and free space.

    Starts the devices of both frameworks, each in a process of its own, to see whether they answer. What is not
    installed is no fault; each extra stands with the command that installs it.

    Exit code 1 where something is wrong; the last lines say what, and what to do.

    Example: unet doctor --json
    """

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""

    relief: ClassVar[str] = "end what else uses it"

    def run(self) -> int:
        """Print what `conversion.health` finds; 1 where something is wrong."""
        from conversion.health import examined
        from unet_cli.tables import print_health

        found = examined()
        if self.json:
            print(found.to_json())
        else:
            print_health(found)
        return 1 if found.problems else 0


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print what lets a shell complete the commands and options of unet.

    For bash, put this into ~/.bashrc: source <(unet completion bash)

    For zsh, write it to a file _unet in a folder of $fpath; for fish, to ~/.config/fish/completions/unet.fish.

    Example: unet completion bash > ~/.local/share/bash-completion/completions/unet
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """Which shell."""

    relief: ClassVar[str] = ""

    def run(self) -> int:
        """Print it."""
        from unet_cli.main import main

        script = io.StringIO()
        with contextlib.redirect_stdout(script):
            code = main(["--tyro-print-completion", self.shell])
        for line in script.getvalue().splitlines():
            # Each suggestion is a line, and a help text of several lines would be several.
            print(line.replace(r"\n", " ") if line.startswith("COMPLETION_SPEC = ") else line)
        if self.shell == "bash":
            print(_OR_FILES)
        return code


def versions() -> Sequence[str]:
    """What `unet --version` prints: quickly, and without starting a device."""
    frameworks = [
        f"{name} {version} ({device()})"
        for name, device in (("torch", torch_device), ("jax", jax_device))
        if (version := version_of(name)) is not None
    ]
    return [f"{DISTRIBUTION} {VERSION}", *(frameworks or ["neither torch nor jax is installed"])]
