"""The errors a user can meet. Each is one line: what is wrong, where, and what to do."""

from collections.abc import Iterable

_LONGEST = 200


def shown(text: object) -> str:
    """A name from a file, fit for one line on a terminal: not too long, and without control characters."""
    return printable(str(text)[:_LONGEST])


def printable(text: str) -> str:
    """The same text with control characters, and whatever else cannot be printed, as Python writes them."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def first_line(error: BaseException) -> str:
    """The first line of what a library says, or the name of its error where it says nothing."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return shown(line if len(line) <= _LONGEST else line[: line.find(". ", 0, _LONGEST)])


def of_system(error: OSError) -> str:
    """What the system refuses, and where, as one line."""
    return f"{error.filename or 'the system'}: {reason(error)}"


def reason(error: OSError) -> str:
    """What the system refuses."""
    if isinstance(error, StorageError):  # which may name what is written in capitals
        return str(error.strerror)
    return (error.strerror or str(error)).lower()


def some(names: Iterable[object], *, most: int = 12) -> str:
    """The first names of many, and how many there are."""
    found = list(names)
    more = f", ... ({len(found)} in all)" if len(found) > most else ""
    return ", ".join(map(shown, found[:most])) + more


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number and what there are so many of: 1 picture, 2 pictures."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def sized(lengths: Iterable[int]) -> str:
    """A size along several axes: 24x32."""
    return "x".join(map(str, lengths))


class UNetError(Exception):
    """Bad input or usage; the command prints it on one line and exits with 2.

    Examples:
        >>> from unet_core import UNetConfig, UNetError
        >>> try:
        ...     UNetConfig(features=())
        ... except UNetError as error:
        ...     print("refused:", type(error).__name__)
        refused: ConfigError
    """


class ConfigError(UNetError, ValueError):
    """A network that cannot exist, or a file's config that cannot be read.

    Examples:
        >>> from unet_core import UNetConfig
        >>> UNetConfig(norm_epsilon=-1.0)
        Traceback (most recent call last):
        unet_core.errors.ConfigError: ...
    """


class CheckpointError(UNetError):
    """A checkpoint that cannot be read, written or trusted.

    Examples:
        >>> import conversion
        >>> conversion.inspect("nothing.pt")
        Traceback (most recent call last):
        unet_core.errors.CheckpointError: nothing.pt: no such file or directory
    """


class DataError(UNetError):
    """Images or masks that cannot be read, or do not fit together."""


class RunError(UNetError):
    """A training run that cannot be started, gone on with, or written."""


class StorageError(UNetError, OSError):
    """An object in a bucket that cannot be read or written: the number of the system's error, why, and where."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class MissingFrameworkError(UNetError, ImportError):
    """The job needs a package that this installation lacks.

    Examples:
        >>> from unet_core import MissingFrameworkError
        >>> try:
        ...     import conversion
        ... except MissingFrameworkError as error:
        ...     print(error)  # what is missing, and the command that installs it
    """
