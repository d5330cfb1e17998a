"""What is pushed to the Hub: a folder of a network, in one commit."""

import errno
import json
from dataclasses import dataclass
from pathlib import Path

from unet_core import objects
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, seal
from unet_core.checkpoints.dialects import OWN
from unet_core.errors import StorageError, shown
from unet_core.hub.client import api, client, is_offline, refusals
from unet_core.hub.store import INDEX, WEIGHTS, Place, Snapshot, has_digest, place_of, snapshot
from unet_core.version import VERSION

CONFIG, CARD = "config.json", "README.md"
CERTIFICATE = f"{WEIGHTS}.certificate.json"


@dataclass(frozen=True)
class Pushed:
    """Where it is now."""

    repo: str
    commit: str
    before: str | None
    """The commit that the repository was at, where it had files of these names; the same one: nothing has changed."""


def repository(name: str) -> str:
    """The owner/name that is meant.

    Raises:
        StorageError: it is none.
    """
    place = place_of(f"hf://{name.removeprefix('hf://')}")
    if place.revision is not None or place.file:
        raise StorageError(errno.EINVAL, "a push goes to a whole repository; give it as owner/name", shown(name))
    return place.repo


def write(folder: Path, checkpoint: Checkpoint, *, dialect: str = OWN.name, card: str | None = None) -> None:
    """Write a network into a new folder: weights with their record, the record by itself, and a card."""
    folder.mkdir()
    safetensors_file.write(folder / WEIGHTS, checkpoint, dialect=dialect)
    record = {RECORD_KEY: json.loads(seal(checkpoint, dialect))}
    (folder / CONFIG).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if card is not None:
        (folder / CARD).write_text(card, encoding="utf-8")


def push(folder: Path, repo: str, *, private: bool = False, message: str | None = None) -> Pushed:
    """Put all files of a folder into a repository, by one commit; it is made where it is not there.

    Files of other names stay; a certificate that is there and not in the folder goes with what it spoke of.

    Args:
        folder: what `write` wrote.
        repo: owner/name.
        private: nobody else may see it; refused where everybody may already.
        message: of the commit.

    Raises:
        StorageError: the Hub refuses, or somebody else pushes at the same time; nothing was changed.
    """
    url, place = f"hf://{repo}", Place(repo, None, "")
    if is_offline(url):
        raise StorageError(errno.ENETDOWN, "HF_HUB_OFFLINE is set, so nothing can be pushed", url)
    said = message or f"Push by unet-twins {VERSION}"

    def make() -> None:
        with refusals(url):
            api(url).create_repo(repo, private=private or None, exist_ok=True)

    objects.asked(url, lambda *_: make())
    head = objects.asked(url, lambda *_: snapshot(url, place))
    _check(head, url, private=private)
    return objects.asked(url, lambda *_: _committed(folder, url, head, said))


def _check(head: Snapshot, url: str, *, private: bool) -> None:
    if private and head.private is False:
        raise StorageError(errno.EEXIST, "everybody may see it already; make it private on its page first", url)
    if INDEX in head.files:
        reason = f"holds weights in several files ({INDEX}), which would be read instead; name another repository"
        raise StorageError(errno.EEXIST, reason, url)


def _committed(folder: Path, url: str, before: Snapshot, message: str) -> Pushed:
    """The commit on top of `before`; where an earlier try has made it, that one."""
    hub, repo = client(url), url.removeprefix("hf://")
    head, names = snapshot(url, Place(repo, None, "")), sorted(path.name for path in folder.iterdir())
    earlier = before.commit if any(name in before.files for name in names) else None
    stale = [CERTIFICATE] if CERTIFICATE in head.files and CERTIFICATE not in names else []
    same = all(name in head.files and has_digest(folder / name, head.files[name].digest) for name in names)
    if same and not stale:
        return Pushed(repo, head.commit, earlier)
    operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in names]
    operations += [hub.CommitOperationDelete(path_in_repo=name) for name in stale]
    try:
        with refusals(url):
            done = api(url).create_commit(
                repo, operations=operations, commit_message=message, parent_commit=before.commit
            )
    except hub.errors.HfHubHTTPError as error:
        if error.response.status_code != 412:
            raise
        raise StorageError(
            errno.EBUSY, "somebody else has pushed there meanwhile; look, and push again", url
        ) from error
    return Pushed(repo, done.oid, earlier)
