"""A proxy in front of a store that fails as networks and stores do, by the number of a request."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = ("503", "429", "cut", "half", "slow")
"""Busy; too many requests; no answer at all; the half of an answer; a late one."""


@contextlib.contextmanager
def proxy(store: str, fault: Callable[[int], str | None]) -> Iterator[str]:
    """The address of a proxy.

    Args:
        store: the address of the store.
        fault: of the number of a request, from 0 up, what goes wrong with it; None: nothing.
    """
    host = store.removeprefix("http://")
    count, lock = [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # who asks "Expect: 100-continue" is answered

        def handle_any(self) -> None:
            with lock:
                kind = fault(count[0])
                count[0] += 1
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if kind is not None and kind.isdecimal():
                self.send_response(int(kind))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if kind == "cut":
                self.close_connection = True
                return
            if kind == "slow":
                time.sleep(1.0)
            connection = http.client.HTTPConnection(host, timeout=60)
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")
            }
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if kind == "half" else content)
            if kind == "half":
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
