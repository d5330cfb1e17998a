"""By what a network is known to be the user's: a state_dict does not say what is computed, code does."""

from dataclasses import dataclass, field
from typing import Any, Literal

from unet_core.checkpoints.dialects import GENERIC, OWN, dialect_of
from unet_core.codec import OPTIONAL

By = Literal["code", "example", "names", "nothing"]
"""What stands behind a network:

- code: it was run against the module itself, in float64; or against an ONNX file itself, in float32;
- example: it was run on an input for which the user's own code had recorded its output;
- names: the names and shapes of its tensors are those of a known project, whose published code it is;
- nothing: somebody said what it computes.
"""


@dataclass(frozen=True)
class Evidence:
    """By what a network is known, and where that came from."""

    by: By
    source: str = ""
    """The class, the recorded example, or the project."""
    detail: str = ""
    """What was compared, and how far apart it was."""
    eval_alone: bool = field(default=False, metadata=OPTIONAL)
    """Whether the source has no training mode, as an ONNX file; what was made of it for training is then compared with
    itself alone."""

    @property
    def proves(self) -> bool:
        """Whether the network was run against something of the user's own."""
        return self.by in ("code", "example")

    def to_dict(self) -> dict[str, Any]:
        """As files have it, which say `eval_alone` where it is so, and are else those of earlier releases."""
        fields = {"by": self.by, "source": self.source, "detail": self.detail}
        return {**fields, "eval_alone": True} if self.eval_alone else fields

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        if self.by == "code":
            return f"code: run against {self.source}{detail}"
        if self.by == "example":
            return f"example: run against the answer recorded in {self.source}{detail}"
        if self.by == "names":
            return (
                f"names: those of {self.source}; a fork with the same names may compute something else: give --module "
                "or --example"
            )
        return "nothing: what the network computes is as somebody said, and was not checked"


OURS = Evidence("code", "unet_torch.UNet")
"""Of a network that this project's own class computes."""

UNCHECKED = Evidence("nothing")
"""Of a network that was described and not checked."""


def by_dialect(dialect: str, *, stored: bool) -> Evidence:
    """Of a network that came under the names of a dialect, and whose code nobody named.

    Args:
        dialect: whose names.
        stored: whether this project wrote the file: then names of its own are those of its own class.
    """
    table = dialect_of(dialect) if dialect != GENERIC else None
    if table is OWN and stored:
        return OURS
    return UNCHECKED if table is None else Evidence("names", table.project)
