"""Yandex Disk's REST API on 127.0.0.1: a real HTTP server over an in-memory disk, with faults to choose from.

It keeps to the service's contract: paths, status codes, error names, links, operations, `_embedded` listings, and a
token in the header `Authorization: OAuth ...`. A `Fault` makes chosen requests go wrong, any number of times.
"""

import threading
from types import TracebackType
from typing import Self

from servers.yandex_faults import Fault
from servers.yandex_requests import Handler, HttpServer

TOKEN = "y0_test-token-of-the-loopback-disk"


class YandexDiskServer:
    """A context manager; `url` is what `yadisk.settings.BASE_API_URL` has to be.

    Attributes:
        files: Content by path.
        folders: Paths of folders.
        requests: `(operation, path)` of every request, in order.
        upload_paths: Paths that upload links were asked for.
        history: Every change of a file, as `(path, content or None)`, in order.
        faults: May be changed at any time.
    """

    def __init__(
        self, *faults: Fault, token: str = TOKEN, total_space: int = 10**10, max_file_size: int = 10**9
    ) -> None:
        self.token = token
        self.faults = list(faults)
        self.total_space = total_space
        self.max_file_size = max_file_size
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = {"/"}
        self.previous: dict[str, bytes | None] = {}
        self.requests: list[tuple[str, str]] = []
        self.upload_paths: list[str] = []
        self.history: list[tuple[str, bytes | None]] = []
        self.links: dict[str, str] = {}
        self.operations: dict[str, list[str]] = {}
        self.lock = threading.RLock()
        self._server = HttpServer(("127.0.0.1", 0), Handler)
        self._server.disk = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def add(self, path: str, content: bytes) -> None:
        """Puts a file there, with its folders."""
        parts = path.strip("/").split("/")
        self.folders |= {"/" + "/".join(parts[:depth]) for depth in range(1, len(parts))}
        self.files[path] = content

    def count(self, operation: str) -> int:
        """Requests of one kind so far."""
        return sum(name == operation for name, _ in self.requests)

    def store(self, path: str, content: bytes | None) -> None:
        """Writes or removes a file and remembers what was there."""
        self.previous[path] = self.files.get(path)
        self.history.append((path, content))
        if content is None:
            self.files.pop(path, None)
        else:
            self.files[path] = content

    def fault_for(self, operation: str, path: str) -> Fault | None:
        """The fault that hits this request, if any."""
        for fault in self.faults:
            if fault.operation not in ("any", operation) or fault.path not in path:
                continue
            fault.hits += 1
            if fault.skip < fault.hits <= fault.skip + fault.times:
                return fault
        return None
