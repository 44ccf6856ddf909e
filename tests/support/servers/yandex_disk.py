"""Yandex Disk's REST API on 127.0.0.1: a real HTTP server over an in-memory disk, with faults to choose from.

It keeps to the service's contract: paths, status codes, error names, links, operations, `_embedded` listings, and a
token in the header `Authorization: OAuth ...`. A `Fault` makes chosen requests go wrong, any number of times.
"""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, quote, urlsplit

TOKEN = "y0_test-token-of-the-loopback-disk"
FOR_EVER = 10**9

Operation = Literal[
    "any", "disk", "meta", "mkdir", "upload_link", "put", "move", "copy", "delete", "operation", "download_link", "get"
]
Kind = Literal[
    "status",  # answer with `status` and do nothing
    "drop_before",  # close the connection, having done nothing
    "drop_half",  # read half of an upload, or send half of a download, then close the connection
    "drop_after",  # do it, then close the connection without an answer
    "status_after",  # do it, then answer with `status`
    "truncate",  # a 201 for the first half of the file
    "alter",  # a 201 for a file with one bit changed; a 200 for a download with one bit changed
    "lose",  # a 201 for a file that is not kept
    "lag",  # metadata: 404 as if the file were not there yet
    "no_hash",  # metadata without sha256 and size, as while the service still hashes
    "stale",  # metadata of what the path held before
    "slow",  # do it, wait `delay_s`, then answer
    "async",  # a move or copy: 202 and an operation that ends after two looks
    "async_failed",  # 202 and an operation that fails, having done nothing
    "garbage",  # 200 with a page that is no JSON
]

ERRORS = {
    400: "FieldValidationError",
    401: "UnauthorizedError",
    403: "ForbiddenError",
    404: "DiskNotFoundError",
    409: "DiskPathDoesntExistsError",
    413: "PayloadTooLarge",
    423: "DiskResourceLockedError",
    429: "TooManyRequestsError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    507: "DiskInsufficientStorageError",
}


@dataclass
class Fault:
    """Makes requests of one kind go wrong.

    Attributes:
        operation: Which requests; `any` for all.
        kind: What happens to them.
        status: For the kinds `status` and `status_after`.
        times: How many requests; `FOR_EVER` for all.
        skip: How many matching requests pass unharmed first.
        path: Only requests whose path holds this text.
        error: Name of the error; by default the usual one of the status.
        retry_after: Header of the answer, in seconds or as a date.
        delay_s: For `slow`.
    """

    operation: Operation
    kind: Kind = "status"
    status: int = 503
    times: int = 1
    skip: int = 0
    path: str = ""
    error: str | None = None
    retry_after: str | None = None
    delay_s: float = 0.0
    hits: int = field(default=0, init=False)


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
        self._server = _Http(("127.0.0.1", 0), _Handler)
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


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    disk: YandexDiskServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet an answer: unbuffered, each waits 40 ms for an acknowledgement
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        """No request log."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        disk, url = self.server.disk, urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        operation, path = self._which(method, url.path, query)
        with disk.lock:
            disk.requests.append((operation, path))
            fault = disk.fault_for(operation, path)
        if operation not in ("put", "get") and self.headers.get("Authorization") != f"OAuth {disk.token}":
            self._drain()
            return self._error(401)
        kind = fault.kind if fault else None
        if fault is not None and kind in ("status", "drop_before", "drop_half", "garbage"):
            return self._refuse(fault)
        if operation != "put":
            self._drain()
        if fault is not None and kind in ("drop_after", "slow", "status_after"):
            answer = self._act(operation, path, query, None)
            if kind == "drop_after":
                return self._drop()
            if kind == "status_after":
                return self._error(fault.status, fault)
            time.sleep(fault.delay_s)
        else:
            answer = self._act(operation, path, query, kind)
        if answer is not None:
            self._answer(*answer)

    def _which(self, method: str, path: str, query: dict[str, str]) -> tuple[str, str]:
        disk = self.server.disk
        target = _plain(query.get("path", ""))
        if path.startswith("/upload-target/"):
            return "put", disk.links.get(path.rpartition("/")[2], "")
        if path.startswith("/download-target/"):
            return "get", disk.links.get(path.rpartition("/")[2], "")
        if path.startswith("/v1/disk/operations/"):
            return "operation", path.rpartition("/")[2]
        names = {
            ("GET", "/v1/disk"): "disk",
            ("GET", "/v1/disk/resources"): "meta",
            ("PUT", "/v1/disk/resources"): "mkdir",
            ("DELETE", "/v1/disk/resources"): "delete",
            ("GET", "/v1/disk/resources/upload"): "upload_link",
            ("GET", "/v1/disk/resources/download"): "download_link",
            ("POST", "/v1/disk/resources/move"): "move",
            ("POST", "/v1/disk/resources/copy"): "copy",
            ("PUT", "/v1/disk/resources/publish"): "publish",
        }
        return names.get((method, path), "unknown"), target

    def _act(self, operation: str, path: str, query: dict[str, str], kind: str | None) -> tuple[int, Any] | None:
        disk = self.server.disk
        if operation == "put":
            return self._put(path, kind)
        if operation == "get":
            return self._get(path, kind)
        with disk.lock:
            if operation == "disk":
                used = sum(map(len, disk.files.values()))
                sizes = {"total_space": disk.total_space, "used_space": used, "trash_size": 0}
                return 200, {**sizes, "max_file_size": disk.max_file_size, "is_paid": False, "system_folders": {}}
            if operation == "meta":
                return self._meta(path, query, kind)
            if operation == "mkdir":
                return self._mkdir(path)
            if operation == "upload_link":
                return self._upload_link(path, query)
            if operation == "download_link":
                if path not in disk.files:
                    return self._failure(404)
                return 200, self._link(f"/download-target/{self._new_link(path)}", "GET")
            if operation in ("move", "copy"):
                return self._transfer(operation, _plain(query["from"]), path, query, kind)
            if operation == "operation":
                states = disk.operations.get(path)
                if not states:
                    return self._failure(404, "DiskOperationNotFoundError")
                return 200, {"status": states.pop(0) if len(states) > 1 else states[0]}
            if operation == "delete":
                if path not in disk.files:
                    return self._failure(404)
                disk.store(path, None)
                return 204, None
            if operation == "publish":
                return 200, self._resource_link(path)
        return self._failure(404, "NotFoundError")

    def _put(self, path: str, kind: str | None) -> tuple[int, Any] | None:
        disk, body = self.server.disk, self._body()
        if len(body) < int(self.headers.get("Content-Length") or 0):
            self.close_connection = True  # its sender has gone; a part of a file is no file
            return None
        if not path:
            return self._failure(404)
        if kind == "truncate":
            body = body[: len(body) // 2]
        elif kind == "alter":
            body = bytes([body[0] ^ 1]) + body[1:]
        with disk.lock:
            if kind != "lose":
                disk.store(path, body)
        return 201, None

    def _get(self, path: str, kind: str | None) -> tuple[int, Any] | None:
        content = self.server.disk.files.get(path)
        if content is None:
            return self._failure(404)
        if kind == "alter":
            content = bytes([content[0] ^ 1]) + content[1:]
        self._send(200, content, "application/octet-stream")
        return None

    def _meta(self, path: str, query: dict[str, str], kind: str | None) -> tuple[int, Any]:
        disk = self.server.disk
        if kind == "lag":
            return self._failure(404)
        if kind == "stale":
            content = disk.previous.get(path)
            return self._failure(404) if content is None else (200, _file(path, content))
        if path in disk.files:
            meta = _file(path, disk.files[path])
            if kind == "no_hash":
                meta = {key: value for key, value in meta.items() if key not in ("size", "md5", "sha256")}
            return 200, _chosen(meta, query.get("fields"))
        if path in disk.folders:
            limit, offset = int(query.get("limit", 20)), int(query.get("offset", 0))
            below = [_folder(name) for name in sorted(disk.folders) if _parent(name) == path and name != "/"]
            below += [_file(name, disk.files[name]) for name in sorted(disk.files) if _parent(name) == path]
            listing = {"limit": limit, "offset": offset, "total": len(below), "sort": "", "path": f"disk:{path}"}
            embedded = {"_embedded": {"items": below[offset : offset + limit], **listing}}
            return 200, _chosen(_folder(path) | embedded, query.get("fields"))
        return self._failure(404)

    def _mkdir(self, path: str) -> tuple[int, Any]:
        disk = self.server.disk
        if path in disk.folders or path in disk.files:
            return self._failure(409, "DiskPathPointsToExistentDirectoryError")
        if _parent(path) not in disk.folders:
            return self._failure(409, "DiskPathDoesntExistsError")
        disk.folders.add(path)
        return 201, self._resource_link(path)

    def _upload_link(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        disk = self.server.disk
        disk.upload_paths.append(path)
        if _parent(path) not in disk.folders:
            return self._failure(409, "DiskPathDoesntExistsError")
        if path in disk.files and query.get("overwrite") != "true":
            return self._failure(409, "DiskResourceAlreadyExistsError")
        link = self._link(f"/upload-target/{self._new_link(path)}", "PUT")
        return 200, {"operation_id": "upload", **link}

    def _transfer(
        self, operation: str, source: str, path: str, query: dict[str, str], kind: str | None
    ) -> tuple[int, Any]:
        disk = self.server.disk
        if source not in disk.files:
            return self._failure(404)
        if path in disk.files and query.get("overwrite") != "true":
            return self._failure(409, "DiskResourceAlreadyExistsError")
        if kind != "async_failed":
            disk.store(path, disk.files[source])
            if operation == "move":
                disk.store(source, None)
        if kind in ("async", "async_failed"):
            name = f"op{len(disk.operations)}"
            end = "success" if kind == "async" else "failed"
            disk.operations[name] = ["in-progress", "in-progress", end]
            return 202, self._link(f"/v1/disk/operations/{name}", "GET")
        return 201, self._resource_link(path)

    def _refuse(self, fault: Fault) -> None:
        if fault.kind == "drop_half" and self._which(self.command, urlsplit(self.path).path, {})[0] == "get":
            content = self.server.disk.files[self.server.disk.links[self.path.rpartition("/")[2]]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            return self._drop()
        if fault.kind == "drop_half":
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self._drop()
        if fault.kind == "drop_before":
            return self._drop()
        self._drain()
        if fault.kind == "garbage":
            return self._send(200, b"<html>log in to the hotel's network</html>", "text/html")
        return self._error(fault.status, fault)

    def _error(self, status: int, fault: Fault | None = None) -> None:
        extra = {"Retry-After": fault.retry_after} if fault and fault.retry_after else {}
        self._answer(*self._failure(status, fault.error if fault else None), extra)

    @staticmethod
    def _failure(status: int, name: str | None = None) -> tuple[int, dict[str, str]]:
        name = name or ERRORS.get(status, "UnknownError")
        return status, {"error": name, "description": f"{name} described", "message": f"{name} in words"}

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self._send(status, content, "application/json", headers)

    def _send(self, status: int, content: bytes, mime: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", mime)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def _drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _drain(self) -> None:
        self._body()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _new_link(self, path: str) -> str:
        disk = self.server.disk
        name = f"link{len(disk.links)}"
        disk.links[name] = path
        return name

    def _link(self, path: str, method: str) -> dict[str, Any]:
        return {"href": f"{self.server.disk.url}{path}", "method": method, "templated": False}

    def _resource_link(self, path: str) -> dict[str, Any]:
        return self._link(f"/v1/disk/resources?path={quote('disk:' + path)}", "GET")


def _plain(path: str) -> str:
    return "/" + path.removeprefix("disk:").removeprefix("app:").strip("/")


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _file(path: str, content: bytes) -> dict[str, Any]:
    hashes = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
    return {"type": "file", "size": len(content), **hashes, **_common(path), "mime_type": "application/octet-stream"}


def _folder(path: str) -> dict[str, Any]:
    return {"type": "dir", **_common(path)}


def _common(path: str) -> dict[str, Any]:
    stamp = "2025-01-01T00:00:00+00:00"
    return {"path": f"disk:{path}", "name": path.rpartition("/")[2], "created": stamp, "modified": stamp, "revision": 1}


def _chosen(meta: dict[str, Any], fields: str | None) -> dict[str, Any]:
    wanted: Iterable[str] = {name.partition(".")[0] for name in fields.split(",")} if fields else meta
    return {key: value for key, value in meta.items() if key in wanted}
