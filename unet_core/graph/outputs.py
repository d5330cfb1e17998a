"""Which of several outputs of a network is meant."""

from collections.abc import Sequence

from unet_core.errors import UNetError, shown, some


def place_of(names: Sequence[str], out: int | str | None) -> int:
    """Which of the tensors that a network returns is meant.

    Args:
        names: their places; of what lies in another, both with a dot between them.
        out: a place among them, counted flat, or a name; of one that holds several, the first.

    Raises:
        UNetError: there is none such.
    """
    if isinstance(out, str):
        for number, name in enumerate(names):
            if name == out or name.startswith(f"{out}."):
                return number
        raise UNetError(f"the network answers nothing under {shown(out)}: {some(names)}")
    index = out or 0
    if not -len(names) <= index < len(names):
        raise UNetError(f"the network answers {len(names)} tensors; there is none of index {index}")
    return index % len(names)
