"""What the Hub calls licences."""

import re
from dataclasses import dataclass

from unet_core.errors import ConfigError, shown

LIST = "huggingface.co/docs/hub/repositories-licenses"
OTHER = "other"
_KNOWN = frozenset(
    f"""
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0
    cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1
    llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 open-mdw openrail openrail++ osl-3.0
    pddl postgresql unknown unlicense wtfpl zlib {OTHER}
    """.split()
)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")


@dataclass(frozen=True)
class License:
    """Of weights.

    Raises:
        ConfigError: the Hub has no such licence, or one that is not among its own has no name.
    """

    license: str
    """The Hub's identifier."""
    name: str | None = None
    """Of one that is not among them: the identifier is `other`."""

    def __post_init__(self) -> None:
        if self.license not in _KNOWN:
            raise ConfigError(
                f"--license {shown(self.license)}: give it as the Hub names it, e.g. apache-2.0, mit, cc-by-4.0 "
                f"({LIST} lists all), or {OTHER} with --license-name"
            )
        if (self.name is None) == (self.license == OTHER):
            raise ConfigError(f"--license {self.license}: --license-name goes with {OTHER}, and {OTHER} needs it")
        if self.name is not None and _NAME.fullmatch(self.name) is None:
            raise ConfigError(f"--license-name {shown(self.name)}: give lower-case letters, digits, - and .")
