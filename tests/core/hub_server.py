"""A hub on 127.0.0.1: the few bits of its API that a download needs, with faults on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40


@dataclass
class Hub:
    """What the server serves and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Contents by path on the server, e.g. `owner/name/folder/file`."""
    drop_after: list[int] = field(default_factory=list)
    """For the next GET requests: how many bytes are sent before the connection is cut."""
    go_on: threading.Event | None = None
    """GET requests send half of a file, then wait for this."""
    waits: str = ""
    """Only files whose path ends so wait."""
    ignore_range: bool = False
    redirect: bool = False
    """Large files are elsewhere, as on the real hub: another address, of which the answer tells size and ETag."""
    etags: dict[str, str] = field(default_factory=dict)
    """What files are named by, where that is not their SHA-256."""
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Range header) of every request."""
    address: str = ""

    def etag(self, path: str, content: bytes) -> str:
        """The ETag header of a file."""
        return f'"{self.etags.get(path, hashlib.sha256(content).hexdigest())}"'

    def gets(self, end: str = "") -> list[str]:
        """The Range headers of the GET requests for paths with this ending."""
        return [asked for method, path, asked in self.seen if method == "GET" and path.endswith(end)]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Runs the server; `hub.address` is its address meanwhile."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            path = re.sub(r"/resolve/[^/]+/", "/", unquote(self.path.split("?")[0])).lstrip("/")
            asked = self.headers.get("Range", "")
            hub.seen.append((self.command, path, asked))
            content = hub.files.get(path.removeprefix("cdn/"))
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if hub.redirect and not path.startswith("cdn/"):
                self._redirect(path, content)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and not hub.ignore_range else 0  # type: ignore[index]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", hub.etag(path.removeprefix("cdn/"), content))
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                self._send(content[start:], waits=hub.go_on if path.endswith(hub.waits) else None)

        def _redirect(self, path: str, content: bytes) -> None:
            self.send_response(302)
            self.send_header("Location", f"{hub.address}/cdn/{path}")
            self.send_header("X-Linked-ETag", hub.etag(path, content))
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, body: bytes, waits: threading.Event | None) -> None:
            if hub.drop_after:
                self.wfile.write(body[: hub.drop_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return
            if waits is not None:
                half = len(body) // 2
                self.wfile.write(body[:half])
                self.wfile.flush()
                waits.wait(60)
                body = body[half:]
            self.wfile.write(body)

    return Handler
