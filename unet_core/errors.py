"""The errors a user can meet. Each is one line: what is wrong, where, and what to do."""

from collections.abc import Iterable

_LISTED = 12


def first_line(error: BaseException) -> str:
    """The first line of what a library says, or the name of its error where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def some(names: Iterable[object]) -> str:
    """The first names of many, and how many there are."""
    found = [str(name)[:200] for name in names]
    more = f", ... ({len(found)} in all)" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more


class UNetError(Exception):
    """Bad input or usage; the command prints it on one line and exits with 2."""


class ConfigError(UNetError, ValueError):
    """A network that cannot exist, or a file's config that cannot be read."""


class CheckpointError(UNetError):
    """A checkpoint that cannot be read, written or trusted."""


class MissingFrameworkError(UNetError, ImportError):
    """The job needs a package that this installation lacks."""
