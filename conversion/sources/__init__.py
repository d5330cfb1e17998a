"""Sources that name their own code: what they hold becomes a live torch module, and nobody needs to say `--module`.

PyTorch, and the package that has the code, are imported when a source needs them.
"""

from conversion.sources.named import NamedCode
from conversion.sources.recognition import named_code

__all__ = ["NamedCode", "named_code"]
