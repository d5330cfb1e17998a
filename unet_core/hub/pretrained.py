"""The three methods by which networks of other libraries come from the Hub and go there.

They are not huggingface_hub's own ModelHubMixin: as a base class that makes the package one that every import needs;
it calls the class with the arguments in `config.json`, where a graph, digests and an origin have no place; and it
checks nothing that it downloads. The names, and what they take, are the same.
"""

import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.errors import CheckpointError
from unet_core.files import atomic
from unet_core.hub.card import card
from unet_core.hub.licenses import License
from unet_core.hub.pushing import push, repository, write
from unet_core.hub.store import WEIGHTS
from unet_core.paths import as_path, as_target


class Pretrained:
    """What a network inherits; each twin says how its networks are read, and what a checkpoint of one holds."""

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, **how: Any) -> Self:
        """The network of a repository, in eval mode.

        Args:
            name: owner/name on the Hub, or a folder of this machine, which comes first, as everywhere in such names.
            revision: a branch, a tag or a commit; None: the default branch.
            how: what the twin's `load` takes.

        Raises:
            unet_core.UNetError: there is none, it is damaged, or of another class; one line says which.
        """
        path = as_path(name)
        if not path.is_dir() or revision is not None:
            said = f"@{quote(revision, safe='')}" if revision else ""
            path = as_path(f"hf://{repository(str(name))}{said}")
        found = cls._read(path, **how)
        if not isinstance(found, cls):
            kind = type(found)
            raise CheckpointError(
                f"{path}: holds a {kind.__name__}, not a {cls.__name__}: {kind.__module__.partition('.')[0]}."
                f"{kind.__name__}.from_pretrained reads it"
            )
        return found

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        license: str | None = None,  # noqa: A002
        license_name: str | None = None,
        force: bool = False,
    ) -> None:
        """Write the network into a new folder, which `from_pretrained` and every command read.

        Args:
            folder: where.
            license: writes a model card with it, too; as the Hub names it.
            license_name: of one that the Hub has no name for, where `license` is "other".
            force: replace a folder that was written so.

        Raises:
            unet_core.UNetError: it exists, or cannot be written.
        """
        path, checkpoint = as_target(folder), self._checkpoint()
        with atomic(path, force=force, replaces=lambda old: (old / WEIGHTS).is_file()) as partial:
            told = License(license or "", license_name) if license is not None or license_name is not None else None
            write(partial, checkpoint, card=card(path.name, checkpoint, license=told) if told else None)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str,  # noqa: A002
        license_name: str | None = None,
        private: bool = False,
        commit_message: str | None = None,
    ) -> str:
        """Push the network to a repository, with a model card, by one commit; returns the commit.

        There is no certificate of a network in memory: `unet push` takes one along.

        Args:
            repo_id: owner/name; it is made where it is not there.
            license: of the weights, as the Hub names it.
            license_name: of one that the Hub has no name for, where `license` is "other".
            private: nobody else may see it.
            commit_message: of the commit.

        Raises:
            unet_core.UNetError: the Hub refuses it; one line says why.

        Examples:
            >>> import unet_torch
            >>> commit = unet_torch.UNet(features=(4, 8)).push_to_hub("owner/name", license="mit")
            >>> unet_torch.UNet.from_pretrained("owner/name", revision=commit).config.features
            (4, 8)
        """
        repo, checkpoint = repository(repo_id), self._checkpoint()
        with tempfile.TemporaryDirectory(prefix="unet-twins-") as folder:
            place = Path(folder) / "model"
            write(place, checkpoint, card=card(repo, checkpoint, license=License(license, license_name)))
            return push(place, repo, private=private, message=commit_message).commit

    @classmethod
    def _read(cls, path: Path, **how: Any) -> Any:
        raise NotImplementedError

    def _checkpoint(self) -> Checkpoint:
        raise NotImplementedError
