"""How the loopback Yandex Disk answers requests: the service's paths, status codes, error names and links."""

import json
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from servers.yandex_faults import Fault
from servers.yandex_resources import chosen_fields, file_resource, folder_resource, parent_of, plain_path

if TYPE_CHECKING:
    from servers.yandex_disk import YandexDiskServer


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


class HttpServer(ThreadingHTTPServer):
    """Serves one disk."""

    daemon_threads = True
    disk: "YandexDiskServer"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests, or lets them go wrong as a fault says."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet an answer: unbuffered, each waits 40 ms for an acknowledgement
    server: HttpServer

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
        target = plain_path(query.get("path", ""))
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
                return self._transfer(operation, plain_path(query["from"]), path, query, kind)
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
            return self._failure(404) if content is None else (200, file_resource(path, content))
        if path in disk.files:
            meta = file_resource(path, disk.files[path])
            if kind == "no_hash":
                meta = {key: value for key, value in meta.items() if key not in ("size", "md5", "sha256")}
            return 200, chosen_fields(meta, query.get("fields"))
        if path in disk.folders:
            limit, offset = int(query.get("limit", 20)), int(query.get("offset", 0))
            below = [folder_resource(name) for name in sorted(disk.folders) if parent_of(name) == path and name != "/"]
            below += [file_resource(name, disk.files[name]) for name in sorted(disk.files) if parent_of(name) == path]
            listing = {"limit": limit, "offset": offset, "total": len(below), "sort": "", "path": f"disk:{path}"}
            embedded = {"_embedded": {"items": below[offset : offset + limit], **listing}}
            return 200, chosen_fields(folder_resource(path) | embedded, query.get("fields"))
        return self._failure(404)

    def _mkdir(self, path: str) -> tuple[int, Any]:
        disk = self.server.disk
        if path in disk.folders or path in disk.files:
            return self._failure(409, "DiskPathPointsToExistentDirectoryError")
        if parent_of(path) not in disk.folders:
            return self._failure(409, "DiskPathDoesntExistsError")
        disk.folders.add(path)
        return 201, self._resource_link(path)

    def _upload_link(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        disk = self.server.disk
        disk.upload_paths.append(path)
        if parent_of(path) not in disk.folders:
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
