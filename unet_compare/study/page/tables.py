"""The tables of a study for LaTeX, with booktabs."""

import re

from unet_compare.study.findings import Outcome
from unet_compare.study.plan import METRICS, TITLES

_SPECIAL = re.compile(r"[&%$#_{}]")


def scores_table(found: Outcome) -> str:
    """Every arm's scores: mean and standard deviation between seeds."""
    head = " & ".join(TITLES[metric] for metric in METRICS)
    lines = [
        f"{escaped(arm.name)} & "
        + " & ".join(f"${arm.scores[metric].mean:.4f} \\pm {arm.scores[metric].spread:.4f}$" for metric in METRICS)
        for arm in found.arms
        if arm.scores
    ]
    return _table("l" + "r" * len(METRICS), f"arm & {head}", lines)


def contrasts_table(found: Outcome) -> str:
    """Every arm beside the first one, in the metric of the study."""
    lines = []
    for arm in found.arms:
        of = arm.contrast(found.study.metric)
        if of is not None:
            ratio = arm.spent.ratio if arm.spent else None
            time = "--" if ratio is None else f"{ratio:.2f}"
            lines.append(
                f"{escaped(arm.name)} & ${of.difference:+.4f}$ & $[{of.interval.low:+.4f}, {of.interval.high:+.4f}]$ & "
                f"{' & '.join(of.p_values)} & {of.verdict} & {time}"
            )
    level = escaped(f"{1 - found.study.level:.0%}")
    head = f"arm & difference & {level} interval & $p$ (equivalence) & $p$ (difference) & verdict & time"
    return _table("lrrrrlr", head, lines)


def escaped(text: str) -> str:
    """As LaTeX sets it."""
    return _SPECIAL.sub(lambda sign: f"\\{sign[0]}", text)


def _table(columns: str, head: str, lines: list[str]) -> str:
    body = "".join(f"{line} \\\\\n" for line in lines)
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
