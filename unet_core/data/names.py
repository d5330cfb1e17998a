"""Which mask belongs to which picture: what the names of their files tell."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from unet_core.errors import DataError

_ENDING = re.compile(r"[ ._-][A-Za-z][A-Za-z0-9]*$")
_BEGINNING = re.compile(r"^[A-Za-z][A-Za-z0-9]*[ ._-]")


@dataclass(frozen=True)
class Affixes:
    """What the names of one kind of files have before and behind the name that a pair shares."""

    before: str = ""
    behind: str = ""

    def stripped(self, name: str) -> str | None:
        """The name of the pair, with its folders; None where the file has not these."""
        folder, slash, base = name.rpartition("/")
        long = len(base) > len(self.before) + len(self.behind)
        if not (long and base.startswith(self.before) and base.endswith(self.behind)):
            return None
        return folder + slash + base[len(self.before) : len(base) - len(self.behind)]


def masks_by_image(images: Iterable[str], masks: Iterable[str], suffix: str | None = None) -> dict[str, str]:
    """The mask of each picture that has one, by their names without the format's suffix, as a/7.

    Same names belong together, also where only the case of letters, or how Unicode composes them, is another one, and
    the match is one to one. Where there are none, all pictures' names, or all masks', may begin or end in a word of
    their own: `7` and `7_mask`, `7_image` and `7_mask`, `image_7` and `mask_7`.

    Args:
        images, masks: names of files.
        suffix: what stands behind a picture's name in its mask's; None: as said.

    Raises:
        DataError: no mask's name ends in `suffix`.
    """
    images, masks = list(images), list(masks)
    if suffix is not None:
        found = _joined(images, masks, Affixes(), Affixes(behind=suffix))
        if masks and not any(name.endswith(suffix) for name in masks):
            raise DataError(f"--mask-suffix {suffix}: no file in masks/ ends so, as {masks[0]} shows")
        return found
    same = _joined(images, masks, Affixes(), Affixes())
    if same or not images or not masks:
        return same
    ways = itertools.product(_possible(images), _possible(masks))
    return max((_joined(images, masks, *way) for way in ways), key=len)


def _joined(images: list[str], masks: list[str], of_images: Affixes, of_masks: Affixes) -> dict[str, str]:
    by_pair = {of_masks.stripped(mask): mask for mask in masks}
    by_pair.pop(None, None)
    pairs = {image: of_images.stripped(image) for image in images}
    exact = {image: by_pair[pair] for image, pair in pairs.items() if pair in by_pair}
    alike = dict(_by_folded({mask: pair for pair, mask in by_pair.items()}, set(exact.values())))
    return exact | {image: alike[folded] for folded, image in _by_folded(pairs, set(exact)) if folded in alike}


def _by_folded(pairs: Mapping[str, str | None], matched: Container[str]) -> list[tuple[str, str]]:
    """The other names by what is left of a pair's without the case of its letters, where only one has that."""
    left = [(_folded(pair), name) for name, pair in pairs.items() if pair is not None and name not in matched]
    count = Counter(folded for folded, _ in left)
    return [(folded, name) for folded, name in left if count[folded] == 1]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _possible(names: list[str]) -> list[Affixes]:
    """None, and what all of the names begin or end in, the least first."""
    bases = [name.rpartition("/")[2] for name in names]
    words = [
        {match.group() if (match := pattern.search(base)) else "" for base in bases}
        for pattern in (_BEGINNING, _ENDING)
    ]
    before, behind = (next(iter(found)) if len(found) == 1 else "" for found in words)
    return list(dict.fromkeys((Affixes(), Affixes("", behind), Affixes(before), Affixes(before, behind))))
