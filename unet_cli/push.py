"""`unet push`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unet_cli.options import ON_CPU, SourceOptions, option


@dataclass(frozen=True, kw_only=True)
class Push(SourceOptions):
    """Push a network to the Hugging Face Hub: weights, config or graph, certificate and a model card, in one commit.

    The certificate of SRC is held against its bytes first. The card says what is known of the network and by what, and
    the figures of the certificate. Every command then reads hf://OWNER/NAME, of a revision hf://OWNER/NAME@REVISION.

    The token is that of `hf auth login`, or HF_TOKEN.

    Example: unet push model_jax owner/name --license apache-2.0

    Example: unet push run owner/name --license mit --dry-run look
    """

    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """Any checkpoint that unet inspect reads, or the folder of a run (its best network)."""
    repo: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")]]
    """The repository; it is made where it is not there."""
    license: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """Of these weights, as the Hub names it: apache-2.0, mit, cc-by-4.0, other."""
    license_name: Annotated[str | None, option("TEXT")] = None
    """Of a licence that the Hub has no name for, with --license other."""
    private: tyro.conf.FlagCreatePairsOff[bool] = False
    """Nobody else may see it; refused where everybody may already."""
    message: Annotated[str | None, option("TEXT")] = None
    """Of the commit."""
    dry_run: Annotated[Path | None, option("DIR")] = None
    """Write the same files to this new folder instead, and send nothing."""

    relief: ClassVar[str] = ON_CPU

    def run(self) -> int:
        """Push, and say what is there now."""
        from conversion.pushing import push

        done = push(
            self.src,
            self.repo,
            license=self.license,
            license_name=self.license_name,
            private=self.private,
            message=self.message,
            dry_run=self.dry_run,
            hints=self.hints(None),
        )
        print(f"known by {done.evidence}")
        print("certificate: of these bytes" if done.certificate else "certificate: none; the card says so")
        if done.pushed is None:
            print(f"{done.src} -> {self.dry_run}: nothing was sent")
        elif done.pushed.before == done.pushed.commit:
            print(f"hf://{done.repo}: has these very files, at commit {done.pushed.commit}")
        else:
            before = f"; before, it was at {done.pushed.before}" if done.pushed.before else ""
            print(f"{done.src} -> hf://{done.repo}@{done.pushed.commit}{before}")
        return 0
