"""A real S3 server for tests, and a proxy that fails on request."""

import os
import re
import select
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pyarrow.fs

# Nothing here may ever reach a real account. Set before Ray starts, whose workers inherit them.
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)

Fault = Literal["hangs up", "500", "503", "is silent"]


@contextmanager
def s3_server() -> Iterator[int]:
    """Moto's server in a process of its own, with an empty bucket; its port."""
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            port = next(int(found[1]) for line in process.stderr if (found := re.search(r"127\.0\.0\.1:(\d+)", line)))
            # It logs each request, and would wait once the pipe is full.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            files, _ = pyarrow.fs.FileSystem.from_uri(f"{uri_of(port)}&allow_bucket_creation=true")
            files.create_dir("bucket")
            yield port
        finally:
            process.kill()


def uri_of(port: int, path: str = "") -> str:
    """The URI of a path in the bucket of the server at a port."""
    return f"s3://bucket/{path}?scheme=http&endpoint_override=127.0.0.1:{port}"


class Line:
    """A TCP proxy to the server, for a `with` block."""

    def __init__(self, upstream: int) -> None:
        self._upstream, self._lock = upstream, threading.Lock()
        self._text = b""
        self._act: Callable[[], object] = lambda: None
        self._fault: Fault = "hangs up"
        self._faults_left = 0
        line = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                line._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> "Line":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def when(self, text: str, act: Callable[[], object]) -> None:
        """Before the first request that holds `text` goes through, `act`."""
        self._text, self._act = text.encode(), act

    def fail(self, fault: Fault, requests: int) -> None:
        """Let `requests` requests fail from now on."""
        self._fault, self._faults_left = fault, requests

    @property
    def works(self) -> bool:
        """Whether all requests that were to fail have failed."""
        return not self._faults_left

    def _fails(self, request: bytes) -> bool:
        with self._lock:
            if self._text and self._text in request:
                self._text = b""
                self._act()
            fails = self._faults_left > 0
            self._faults_left -= fails
            return fails

    def _serve(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._upstream)) as server:
            while True:
                for one in select.select([client, server], [], [])[0]:
                    try:
                        data = one.recv(1 << 16)
                        if one is client and data and self._fails(data):
                            self._answer_with_fault(client)
                            return
                        (server if one is client else client).sendall(data)
                    except ConnectionError:
                        return
                    if not data:
                        return

    def _answer_with_fault(self, client: socket.socket) -> None:
        if self._fault in ("500", "503"):
            client.sendall(f"HTTP/1.1 {self._fault} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        elif self._fault == "is silent":
            while client.recv(1 << 16):
                pass
