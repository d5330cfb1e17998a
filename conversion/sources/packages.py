"""The packages whose classes a source may name, each imported when one is named."""

import importlib
import importlib.metadata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from unet_core.errors import CheckpointError, MissingFrameworkError, first_line, shown


@contextmanager
def quiet() -> Iterator[None]:
    """Let other people's code warn of itself without anyone hearing it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Package:
    """A package that pip installs."""

    module: str
    """As Python imports it."""
    distribution: str
    """As pip installs it."""

    @property
    def version(self) -> str:
        """What is installed, e.g. `monai 1.6.1`."""
        return f"{self.distribution} {importlib.metadata.version(self.distribution)}"

    def imported(self, source: str, part: str = "") -> ModuleType:
        """The package, or a part of it.

        Args:
            source: whose code is in it, for the message.
            part: what follows its name, e.g. `networks.nets`.

        Raises:
            MissingFrameworkError: it, or a package that it needs, is not installed or does not work.
        """
        try:
            with quiet():
                importlib.import_module(self.module)
                return importlib.import_module(f"{self.module}.{part}" if part else self.module)
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            if missing == self.module and error.name != self.module:
                raise CheckpointError(f"{source}: {self.version} has no module {shown(error.name)}") from error
            install = self.distribution if missing == self.module else missing
            raise MissingFrameworkError(
                f"{source}: its code is in {self.module}, which needs {install}: pip install {install}", name=missing
            ) from error
        except Exception as error:  # whatever its own imports meet, such as a torchvision for another torch
            raise MissingFrameworkError(
                f"{source}: its code is in {self.module}, which is installed but does not import: {first_line(error)}",
                name=self.module,
            ) from error

    def differing(self, recorded: object) -> tuple[str, ...]:
        """A note where the source was written with another version than is installed."""
        installed = importlib.metadata.version(self.distribution)
        if not isinstance(recorded, str) or recorded == installed:
            return ()
        return (f"written with {self.distribution} {shown(recorded)}; {installed} is installed",)


SEGMENTATION_MODELS = Package("segmentation_models_pytorch", "segmentation-models-pytorch")
MONAI = Package("monai", "monai")
ARCHITECTURES = Package("dynamic_network_architectures", "dynamic-network-architectures")
