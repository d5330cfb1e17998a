"""How a long job tells its caller where it is."""

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with a few words on what comes next and the fraction, from 0 to 1, that is done."""


def silent(_text: str, _done: float) -> None:
    """Tells nobody."""
