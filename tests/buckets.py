"""Servers on the loopback that answer as Google's and Amazon's object stores do."""

import contextlib
import socket
import socketserver
from collections.abc import Callable, Iterator
from typing import Any

import pytest

GCS_VARIABLES = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def gcs() -> Iterator[str]:
    """The address of an emulator of Google's store, with an empty bucket, `bucket`."""
    server = pytest.importorskip("gcp_storage_emulator.server")
    port = free_port()
    socketserver.TCPServer.request_queue_size = 128  # with its 5, many requests at a time wait for seconds
    if server._read_raw_data is not _read_exactly:
        _RAW.append(server._read_raw_data)
        server._read_raw_data = _read_exactly
    for _, methods in server.HANDLERS:
        if methods.get("GET") in (server.objects.download, server.objects.get):
            methods["GET"] = _telling_generations(methods["GET"])
    emulator = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    storage = emulator._storage  # else each request writes a table of all objects that there ever were
    storage._write_config_to_file = lambda: None
    storage.buckets["bucket"]["softDeletePolicy"] = {"retentionDurationSeconds": 0}
    emulator.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        emulator.stop()


_RAW: list[Callable[[Any], bytes | None]] = []
_END = b"\n--==0==--"
"""How gcsfs ends what it puts in one request."""


def _read_exactly(handler: Any) -> bytes | None:
    """A request's body, from which the emulator's parser, one for letters, takes no CR that ends an object."""
    raw = _RAW[0](handler)
    return raw[: -len(_END)] + b"\r" + _END if raw and raw.endswith(b"\r" + _END) else raw


def _telling_generations(answer: Callable[..., None]) -> Callable[..., None]:
    """The same, with the header of Google's store by which TensorStore knows what it has read."""

    def telling(request: Any, response: Any, storage: Any, *rest: Any) -> None:
        answer(request, response, storage, *rest)
        if isinstance(response._content, bytes):
            about = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
            response["x-goog-generation"] = about["generation"]

    return telling


def gcs_environment(address: str) -> dict[str, str]:
    """What gcsfs, etils, TensorStore and Orbax go there by."""
    return {
        **dict.fromkeys(GCS_VARIABLES, address),
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "FSSPEC_GS_TOKEN": "anon",
    }


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """The address of moto's server."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def s3_environment(address: str) -> dict[str, str]:
    """What s3fs goes there by."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nobody",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
