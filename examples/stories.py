"""How the demo and the example are run."""

import sys
import time
from typing import Any

import tyro

from conversion.result import DifferentError
from unet_cli.tables import print_proof
from unet_core import UNetError


def run_story(kind: type[Any], name: str, module: str) -> int:
    """Read the command line into a story, run it, and say how long it took; returns the exit code.

    Args:
        kind: a dataclass with a method `run`; its fields are the options.
        name: what errors begin with.
        module: for the help.
    """
    story = tyro.cli(kind, prog=f"python -m {module}")
    started = time.monotonic()
    try:
        story.run()
    except DifferentError as error:
        print_proof(error.proof)
        return 1
    except (UNetError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    print(f"Done in {time.monotonic() - started:.0f} s.")
    return 0
