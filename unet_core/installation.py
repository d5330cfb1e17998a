"""What is installed: this distribution's extras, as its own metadata lists them, and what they need."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from unet_core.errors import MissingFrameworkError

DISTRIBUTION = "unet-twins"

_PACKAGES = {"PIL": "pillow", "orbax": "orbax-checkpoint"}
"""Whose modules have another name."""


@dataclass(frozen=True)
class Package:
    """One that is needed, and what there is of it."""

    name: str
    needed: str
    """Its versions that do, as `>=2.0`."""
    installed: str | None
    fits: bool
    """Whether it is installed in such a version."""


@dataclass(frozen=True)
class Extra:
    """A group of packages that some jobs need; without a name, those that every job needs."""

    name: str
    packages: tuple[Package, ...]
    install: str
    """The command that installs them."""

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package.name for package in self.packages if package.installed is None]

    @property
    def unfit(self) -> list[str]:
        """Packages that are installed in another version than is needed."""
        return [
            f"{package.name} {package.installed} (needs {package.needed})"
            for package in self.packages
            if package.installed is not None and not package.fits
        ]


def version_of(distribution: str) -> str | None:
    """Of what is installed; None where it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def extras() -> list[Extra]:
    """What every job needs, and then each extra, in the order of the metadata.

    Raises:
        MissingFrameworkError: this distribution is not installed, only its code is there.
    """
    own = _distribution()
    if own is None:
        raise MissingFrameworkError(f"{DISTRIBUTION} is not installed, only its code is there: {installing('')}")
    names = ("", *(own.metadata.get_all("Provides-Extra") or ()))
    return [Extra(name, tuple(_packages(name)), installing(name)) for name in names]


def installing(extra: str) -> str:
    """The command that installs an extra, from where this distribution was installed."""
    chosen = f"[{extra}]" if extra else ""
    own = _distribution()
    if own is None:
        return f"pip install -e '.{chosen}' -c constraints.txt"
    origin = json.loads(own.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        folder = Path(unquote(urlparse(origin["url"]).path))
        return f"pip install -e '{folder}{chosen}' -c '{folder / 'constraints.txt'}'"
    return f"pip install '{DISTRIBUTION}{chosen}'"


def of_missing(error: ModuleNotFoundError) -> str | None:
    """What is missing and what installs it, where an extra has the package; None: an error of ours."""
    module = str(error.name).partition(".")[0]
    package = _PACKAGES.get(module, module)
    known = extras() if _distribution() is not None else []
    advice = (extra.install for extra in known if package in extra.missing)
    return next((f"this needs {package}, which is not installed: {install}" for install in advice), None)


def _distribution() -> metadata.Distribution | None:
    """This one; None where only its code is there."""
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def _packages(extra: str) -> Iterator[Package]:
    seen = set()
    for package in _needed(DISTRIBUTION, extra):
        if package.name not in seen:
            seen.add(package.name)
            yield package


def _needed(distribution: str, extra: str) -> Iterator[Package]:
    """What an extra of an installed distribution adds, with the extras of others that it names in turn."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for text in metadata.requires(distribution) or ():
        one = Requirement(text)
        always = one.marker is None or one.marker.evaluate({"extra": ""})
        if always != (not extra) or not (always or one.marker is None or one.marker.evaluate({"extra": extra})):
            continue
        installed = version_of(one.name)
        if canonicalize_name(one.name) != canonicalize_name(distribution):
            fits = installed is not None and one.specifier.contains(installed, prereleases=True)
            yield Package(one.name, str(one.specifier), installed, fits)
        if installed is not None:
            for inner in sorted(one.extras):
                yield from _needed(one.name, inner)
