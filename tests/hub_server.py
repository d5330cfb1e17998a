"""A server on the loopback that speaks the Hub's protocol, as far as huggingface_hub speaks it with models."""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_token_of_the_tests"


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "") -> str:
        """All files of a new commit; its hash."""
        name = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits.append((name, files))
        self.messages.append(message)
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((one for one in self.commits if one[0] == revision), None)


class Hub:
    """What is there, and what goes wrong next."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.faults: dict[str, list[object]] = {}
        """By a part of a path what its next answers are: a status, "cut", or `bytes`: others than the file's."""

    def fault(self, path: str) -> object:
        waiting = next((faults for part, faults in self.faults.items() if part in path and faults), None)
        return waiting.pop(0) if waiting else None

    def put(self, name: str, files: dict[str, bytes], **about: bool) -> str:
        repository = self.repositories.setdefault(name, Repository(**about))
        return repository.commit({**(repository.commits[-1][1] if repository.commits else {}), **files})


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: object = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.body()
        self.hub.requests[f"{self.command} {path}"] += 1
        fault = self.hub.fault(f"{self.command} {path}")
        if isinstance(fault, int):
            self.answer(fault, {"error": "out of order"})
            return
        for pattern, method in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                method(self, *found.groups(), body=body, fault=fault)
                return
        self.answer(404, {"error": "no such path"}, X_Error_Code="RepoNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def repository(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files, once the client may see them; else the refusal is answered."""
        found, known = self.hub.repositories.get(name), self.headers.get("authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not known):
            self.answer(404 if known else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif found.gated:
            self.answer(403, {"error": "Access is restricted"}, X_Error_Code="GatedRepo")
        elif (at := found.at(revision)) is None:
            self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        else:
            return at
        return None

    def info(self, name: str, revision: str | None, **_: object) -> None:
        found = self.repository(name, revision or "main")
        if found is not None:
            siblings = []
            for file, content in found[1].items():
                one: dict[str, object] = {"rfilename": file, "size": len(content), "blobId": git_sha1(content)}
                if is_large(file):
                    sha256 = hashlib.sha256(content).hexdigest()
                    one["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
                siblings.append(one)
            private = self.hub.repositories[name].private
            self.answer(200, {"id": name, "sha": found[0], "private": private, "siblings": siblings})

    def resolve(self, name: str, revision: str, file: str, *, fault: object, **_: object) -> None:
        found = self.repository(name, revision)
        if found is None:
            return
        if file not in found[1]:
            self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=found[0])
            return
        content = found[1][file]
        headers = {"X_Repo_Commit": found[0], "ETag": f'"{git_sha1(content)}"', "Accept_Ranges": "bytes"}
        if is_large(file):
            headers["X_Linked_ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X_Linked_Size"] = str(len(content))
        if fault == "cut" and self.command == "GET":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        body = bytes(len(content)) if fault is bytes else content
        if part:
            begin = int(part[1])
            headers["Content_Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            self.answer(206, body[begin:], **headers)
        else:
            self.answer(200, body, **headers)

    def create(self, *, body: bytes, **_: object) -> None:
        asked = json.loads(body)
        name = f"{asked['organization'] or 'nobody'}/{asked['name']}"
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid credentials in Authorization header"})
        elif name in self.hub.repositories:
            self.answer(409, {"error": "You already created this model repo", "url": name})
        else:
            self.hub.put(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=asked.get("private") or False)
            self.hub.repositories[name].private |= asked.get("visibility") == "private"
            self.answer(200, {"url": f"{self.base}/{name}", "name": name})

    def validate(self, **_: object) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str, *, body: bytes, **_: object) -> None:
        found = self.repository(name, revision)
        if found is not None:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if is_large(one["path"]) else "regular",
                    "shouldIgnore": False,
                    "oid": git_sha1(found[1][one["path"]]) if one["path"] in found[1] else None,
                }
                for one in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})

    def batch(self, name: str, *, body: bytes, **_: object) -> None:
        objects = []
        for one in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.base}/upload/{one['oid']}"}}
            objects.append({**one, **({} if one["oid"] in self.hub.uploads else {"actions": upload})})
        self.answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str, *, body: bytes, **_: object) -> None:
        if hashlib.sha256(body).hexdigest() == oid:
            self.hub.uploads[oid] = body
            self.answer(200)
        else:
            self.answer(400, {"error": "not of this digest"})

    def commit(self, name: str, revision: str, *, body: bytes, **_: object) -> None:
        found = self.repository(name, revision)
        if found is None:
            return
        lines = [json.loads(line) for line in body.splitlines()]
        header, files = lines[0]["value"], dict(found[1])
        if header.get("parentCommit") not in (None, found[0]):
            self.answer(412, {"error": "A commit has happened since"})
            return
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            else:
                del files[value["path"]]
        commit = self.hub.repositories[name].commit(files, header["summary"])
        self.answer(200, {"commitUrl": f"{self.base}/{name}/commit/{commit}", "commitOid": commit})

    @property
    def base(self) -> str:
        return f"http://{self.headers['Host']}"


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (rf"GET /api/models/{NAME}(?:/revision/(.+))?", Handler.info),
    (rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/models/{NAME}/preupload/(.+)", Handler.preupload),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /upload/(\w+)", Handler.upload),
    (rf"POST /api/models/{NAME}/commit/(.+)", Handler.commit),
]


@contextlib.contextmanager
def served() -> Iterator[tuple[Hub, str]]:
    """What is there, and the address of the server."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
