"""The text of a class: its attributes as calls, equal ones in loops, and what it computes."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from conversion.exports.code.blocks import Block, Construct, Group, Use
from conversion.exports.code.language import Hole, Language, Made, Option
from conversion.exports.code.tree import WIDTH


def class_of(group: Group, language: Language) -> list[str]:
    """The lines of a class."""
    block = group.blocks[0]
    names, places = group.parameters()
    holes = iter([names[place] if place is not None else None for place in places])
    arguments = "".join(f"{name}: int, " for name in names)
    body = [] if block.sequence is not None else [*language.start]
    for name, construct in block.made.items():
        body += _assigned(name, _written(construct, holes), language)
    takes = any("rngs=rngs" in line for line in body)
    given = f"self, {arguments}{'*, rngs: nnx.Rngs' if takes else ''}".rstrip(", ")
    base = language.module if block.sequence is None else language.sequence
    lines = [f"class {group.name}({base}):", f"    def __init__({given}) -> None:"]
    lines += [f"        {line}" for line in body]
    if block.forward is not None:
        taken = "".join(f", {name}: {language.array}" for name in block.forward.arguments)
        count = block.forward.answers
        answer = language.array if count == 1 else f"tuple[{', '.join([language.array] * count)}]"
        lines += ["", f"    def {language.forward}(self{taken}) -> {answer}:"]
        alone = len(group.blocks) == 1  # else a line's shape is another in every block
        for number, line in enumerate(block.forward.lines):
            comment = f"  # {shape}" if alone and (shape := block.forward.shapes.get(number)) else ""
            lines.append(f"        {line}{comment if len(line + comment) < WIDTH else ''}")
    return lines


def _written(construct: Construct, holes: Iterator[str | None]) -> Any:
    """A call as text, or a list of them with what is around it."""
    if isinstance(construct, Made):
        return "".join(_filled(part, holes) for part in construct.parts)
    if isinstance(construct, Use):
        given = [_filled(hole, holes) for hole in construct.block.group.arguments(construct.block)]
        rngs = ["rngs=rngs"] if _takes_rngs(construct.block) else []
        return f"{construct.block.group.name}({', '.join([*given, *rngs])})"
    return construct.called, construct.names, [_written(item, holes) for item in construct.items]


def _takes_rngs(block: Block) -> bool:
    return any(_needs_rngs(construct) for construct in block.made.values())


def _needs_rngs(construct: Construct) -> bool:
    if isinstance(construct, Made):
        return any("rngs" in part for part in construct.parts if isinstance(part, str))
    if isinstance(construct, Use):
        return _takes_rngs(construct.block)
    return any(map(_needs_rngs, construct.items))


def _filled(part: str | Hole, holes: Iterator[str | None]) -> str:
    if isinstance(part, str):
        return part
    name = next(holes)
    text = name or str(part.value)
    if not isinstance(part, Option):
        return text
    return "" if name is None and part.value == part.default else f", {part.keyword}={text}"


def _assigned(target: str, value: Any, language: Language) -> list[str]:
    lines = _laid_out(value, language)
    if not target:
        return [f"super().__init__{lines[0].removeprefix(language.sequence)}", *lines[1:]]
    return [f"self.{target} = {lines[0]}", *lines[1:]]


def _laid_out(value: Any, language: Language) -> list[str]:
    """The lines of a call, or of a list of them."""
    if isinstance(value, str):
        return [value]
    called, names, items = value
    kind = language.sequence if called else language.mapping if names else language.several
    opening, closing = ("(", ")") if called else ("({", "})") if names else ("([", "])")
    texts = [_laid_out(item, language) for item in items]
    for name, text in zip(names, texts, strict=False):  # of a mapping
        text[0] = f'"{name}": {text[0]}'
    looped = _looped([text[0] for text in texts if len(text) == 1]) if len(texts) > 1 else None
    if looped is not None and all(len(text) == 1 for text in texts):
        whole = f"{kind}({'*' if called else ''}[{looped}])"
        if len(whole) < WIDTH:
            return [whole]
    whole = f"{kind}{opening}{', '.join(text[0] for text in texts)}{closing}"
    if all(len(text) == 1 for text in texts) and len(whole) < WIDTH - 20:
        return [whole]
    lines = [f"{kind}{opening}"]
    for text in _repeated(texts):
        lines += [f"    {line}" for line in text[:-1]]
        lines.append(f"    {text[-1]},")
    return [*lines, closing]


def _repeated(texts: Sequence[list[str]]) -> list[list[str]]:
    """The same, but that three or more equal ones in a row are one line."""
    found: list[list[str]] = []
    for text, group in itertools.groupby(texts):
        count = len(list(group))
        again = count > 2 and len(text) == 1
        found += [[f"*[{text[0]} for _ in range({count})]"]] if again else [text] * count
    return found


def _looped(texts: Sequence[str]) -> str | None:
    """Equal calls but for their numbers, as a comprehension."""
    calls = [re.fullmatch(r"([\w.]+)\(([\w, ]*?)((?:, )?(?:rngs=rngs)?)\)", text) for text in texts]
    if not all(calls):
        return None
    heads = {(call[1], call[3]) for call in calls if call}
    if len(heads) != 1:
        return None
    ((name, rest),) = heads
    given = [call[2].split(", ") if call and call[2] else [] for call in calls]
    if len({len(one) for one in given}) != 1:
        return None
    columns = list(zip(*given, strict=True))
    varied = [number for number, column in enumerate(columns) if len(set(column)) > 1]
    if not varied:
        return f"{texts[0]} for _ in range({len(texts)})"
    if len(texts) < 3:
        return None
    letters = dict(zip(varied, "abcdefg", strict=False))
    if len(letters) < len(varied):
        return None
    inner = ", ".join(letters.get(number, column[0]) for number, column in enumerate(columns))
    rows = [f"({', '.join(one[number] for number in varied)})" if len(varied) > 1 else one[varied[0]] for one in given]
    return f"{name}({inner}{rest}) for {', '.join(letters.values())} in ({', '.join(rows)})"
