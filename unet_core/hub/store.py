"""Repositories of the Hub as `unet_core.objects` asks stores: read alone, through the cache of huggingface_hub.

A revision is resolved to a commit once, where it enters (`Store.pinned`). Each file is held against the digest that the
Hub has of it: the sha256 of large ones, git's sha1 of others.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import unquote

from unet_core.errors import StorageError
from unet_core.hub.client import api, client, is_offline, refusals

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
"""The file of weights that programs look for in a repository."""

INDEX = f"{WEIGHTS}.index.json"
HUB_WEIGHTS = (WEIGHTS, INDEX, "pytorch_model.bin")
"""Each of them tells a folder of a network from others that have a `config.json`."""

_OTHERS = frozenset((".bin", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".pt", ".pth", ".tflite"))
"""Suffixes of the same weights for other programs, which are left out where there are .safetensors files."""

_PLACE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<file>.+))?")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Place:
    """What an address means."""

    repo: str
    revision: str | None
    """A branch, a tag or a commit; None: the default branch."""
    file: str
    """Or a folder; empty: all of the repository."""

    @property
    def pinned(self) -> bool:
        """Whether it means the same for ever."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> str:
        """The address with a commit."""
        return f"hf://{self.repo}@{commit}" + (f"/{self.file}" if self.file else "")


@dataclass(frozen=True)
class File:
    """What the Hub tells of a file."""

    size: int
    digest: str
    """Its sha256, or git's sha1 of it, in hex."""


@dataclass(frozen=True)
class Snapshot:
    """A repository at a commit."""

    commit: str
    files: Mapping[str, File]
    private: bool | None = None


def place_of(url: str) -> Place:
    """What an address hf://owner/name[@revision][/file] means.

    Raises:
        StorageError: it is none.
    """
    found = _PLACE.fullmatch(url.partition("://")[2].strip("/"))
    if found is None or found["repo"].partition("/")[0] in ("datasets", "spaces"):
        raise StorageError(errno.EINVAL, "no repository of a model; give it as hf://owner/name[@revision][/file]", url)
    revision = found["revision"]
    return Place(found["repo"], revision and unquote(revision), found["file"] or "")


def is_pinned(url: str) -> bool:
    """Whether it is the address of a repository with a commit."""
    try:
        return url.startswith("hf://") and place_of(url).pinned
    except StorageError:
        return False


def snapshot(url: str, place: Place) -> Snapshot:
    """What is in a repository now; of the cache alone, where that is all that may be read.

    Raises:
        StorageError: the repository or the revision is not there, or may not be read.
    """
    if is_offline(url):
        return _cached(url, place)
    with refusals(url, place.revision):
        info = api(url).model_info(place.repo, revision=place.revision, files_metadata=True)
    files = {
        one.rfilename: File(one.size or 0, one.lfs.sha256 if one.lfs else one.blob_id or "")
        for one in info.siblings or ()
    }
    return Snapshot(info.sha, files, info.private)


def _cached(url: str, place: Place) -> Snapshot:
    hub = client(url)
    try:
        folder = Path(hub.snapshot_download(place.repo, revision=place.revision, local_files_only=True))
    except hub.errors.LocalEntryNotFoundError as error:
        reason = "is not in the cache of huggingface_hub, and HF_HUB_OFFLINE allows no more than that"
        raise StorageError(errno.ENOENT, reason, url) from error
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): File(path.stat().st_size, _blob(path).name) for path in paths}
    return Snapshot(folder.name, files)


def _blob(path: Path) -> Path:
    """What a file of the cache is a link to: it is named by the digest."""
    return Path(os.path.abspath(path.parent / os.readlink(path))) if path.is_symlink() else path


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file is the one that the Hub speaks of."""
    with open(path, "rb") as file:
        if len(digest) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
        state = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
        while part := file.read(1 << 20):
            state.update(part)
        return state.hexdigest() == digest


@dataclass
class Store:
    """As a file system of fsspec, as far as `unet_core.objects` asks one."""

    _known: dict[tuple[str, str], Snapshot] = field(default_factory=dict)
    """By repository and commit."""
    _asked: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """The revisions that were said for them, which the cache is still to learn."""
    async_impl = True
    """It is for all threads."""

    @staticmethod
    def _strip_protocol(url: str) -> str:
        return url.partition("://")[2].strip("/")

    def pinned(self, name: str) -> str:
        """The address with the commit that its revision is now."""
        place = place_of(f"hf://{name}")
        return f"hf://{name}" if place.pinned else place.at(self._at(name, place).commit)

    def find(self, name: str, **_: Any) -> dict[str, dict[str, Any]]:
        """All files at or below a name; of a repository, not the same weights for other programs."""
        place = place_of(f"hf://{name}")
        files = self._at(name, place).files
        if not place.file:
            lean = any(one in files for one in (WEIGHTS, INDEX))
            chosen = [one for one in files if not (lean and PurePosixPath(one).suffix in _OTHERS)]
            return {f"{name}/{one}": self._about(files[one]) for one in chosen}
        inside = f"{place.file}/"
        below = {f"{name}/{one.removeprefix(inside)}": files[one] for one in files if one.startswith(inside)}
        here = {name: files[place.file]} if place.file in files else {}
        return {one: self._about(file) for one, file in (here | below).items()}

    def info(self, name: str) -> dict[str, Any]:
        """Of a file or a folder."""
        place = place_of(f"hf://{name}")
        files = self._at(name, place).files
        if place.file in files:
            return self._about(files[place.file])
        if not place.file or any(one.startswith(f"{place.file}/") for one in files):
            return {"type": "directory"}
        raise FileNotFoundError(errno.ENOENT, "no such file in the repository", f"hf://{name}")

    def ls(self, name: str, **_: Any) -> list[str]:
        """What is next below a folder."""
        below = [one.removeprefix(f"{name}/").partition("/")[0] for one in self.find(name)]
        return [f"{name}/{one}" for one in dict.fromkeys(below)]

    def cat_file(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of a file."""
        return self._checked(name).read_bytes()[start:end]

    def get_file(self, name: str, local: str) -> None:
        """Copy a file here."""
        shutil.copyfile(self._checked(name), local)

    def pipe_file(self, name: str, *_: Any, **__: Any) -> NoReturn:
        """Refused, as all writing: `unet_core.objects` says so before."""
        raise StorageError(errno.EROFS, READ_ALONE, f"hf://{name}")

    put_file = rm_file = pipe_file

    @staticmethod
    def _about(file: File) -> dict[str, Any]:
        return {"type": "file", "size": file.size, "ETag": file.digest}

    def _at(self, name: str, place: Place) -> Snapshot:
        known = self._known.get((place.repo, place.revision or ""))
        if known is not None:
            return known
        found = snapshot(f"hf://{name}", place)
        key = (place.repo, found.commit)
        if not place.pinned:
            if key not in self._asked:
                logger.info("hf://%s is at commit %s", place.repo, found.commit)
            self._asked[key] = place.revision
        return self._known.setdefault(key, found)

    def _checked(self, name: str) -> Path:
        """A file in the cache, fetched where it is not there, and held against its digest."""
        url, place = f"hf://{name}", place_of(f"hf://{name}")
        found = self._at(name, place)
        if place.file not in found.files:
            raise FileNotFoundError(errno.ENOENT, "no such file in the repository", url)
        path = self._downloaded(url, place, found.commit)
        if not has_digest(path, found.files[place.file].digest):
            for one in {path, _blob(path)}:
                one.unlink(missing_ok=True)
            reason = "its bytes are not those of the Hub's digest; they were removed from the cache, try again"
            raise StorageError(errno.EIO, reason, url)
        return path

    def _downloaded(self, url: str, place: Place, commit: str) -> Path:
        hub, said = client(url), self._asked.pop((place.repo, commit), commit)
        with refusals(url, place.revision):
            if said != commit and not is_offline(url):  # so that the cache knows the revision, too
                path = Path(hub.hf_hub_download(place.repo, place.file, revision=said))
                if commit in path.parts:
                    return path
            return Path(hub.hf_hub_download(place.repo, place.file, revision=commit))


READ_ALONE = "repositories of the Hub are read alone here; unet push writes them"
