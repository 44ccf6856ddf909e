"""A Weights & Biases server on 127.0.0.1: what a run's client calls, kept in memory, with faults to choose from.

It answers the GraphQL operations and the file stream that `wandb` 0.31 uses for online runs and `wandb sync`,
takes uploaded files, and continues a run whose id it knows already, as the real service does.
"""

import gzip
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import unquote

API_KEY = "0123456789abcdef0123456789abcdef01234567"
Fault = Literal["none", "unauthorized", "silent", "error"]


@dataclass
class ServerRun:
    """What the server knows of one run."""

    name: str
    project: str = ""
    group: str | None = None
    job_type: str | None = None
    display_name: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    complete: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the history in their order on the server."""
        return [self.history[line] for line in sorted(self.history)]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The rows that are reports of the trial, without its curve and overlays."""
        return [row for row in self.rows if "epoch" in row]


class WandbServer:
    """A context manager; `url` is the base URL, `runs` what arrived, `fault` may change at any time.

    Faults: `unauthorized` answers 401 to everything, `silent` takes requests and never answers, `error` answers
    500. `kill()` drops the connections and the port, as a crashed server does.
    """

    def __init__(self, fault: Fault = "none", api_key: str = API_KEY) -> None:
        self.fault: Fault = fault
        self.api_key = api_key
        self.runs: dict[str, ServerRun] = {}
        self.operations: list[str] = []
        self.lock = threading.Lock()
        self._released = threading.Event()
        self._connections: set[Any] = set()
        self._server = _Http(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._alive = False

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._alive = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """Stop at once: no answer to what is under way, the port refuses from now on."""
        if not self._alive:
            return
        self._alive = False
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def wait_for_runs(self, number: int, timeout_s: float = 20.0) -> None:
        """Returns once so many runs are known.

        Raises:
            TimeoutError: They are not after `timeout_s`.
        """
        end = time.monotonic() + timeout_s
        while len(self.runs) < number:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.runs)} of {number} runs after {timeout_s} s")
            time.sleep(0.05)

    def hang(self) -> None:
        """Hold the calling request until the server ends."""
        self._released.wait(120)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: WandbServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        """No request log."""

    def handle_one_request(self) -> None:
        super().handle_one_request()
        if not self.server.owner._alive:
            self.close_connection = True

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        owner = self.server.owner
        body = self._body()
        if owner.fault == "silent":
            owner.hang()
            self.close_connection = True
            return
        if not owner._alive:
            self.close_connection = True
            return
        if owner.fault == "unauthorized":
            return self._reply(401, {"errors": [{"message": "user is not logged in", "extensions": {"code": "401"}}]})
        if owner.fault == "error":
            return self._reply(500, {"error": "internal"})
        if self.path == "/graphql":
            request = json.loads(body)
            match = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            name = match.group(1) if match else "unnamed"
            with owner.lock:
                owner.operations.append(name)
                return self._reply(
                    200, {"data": _graphql(owner, name, request.get("variables") or {}, request["query"])}
                )
        if match := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", self.path):
            with owner.lock:
                owner.operations.append("file_stream")
                return self._reply(200, _file_stream(owner, match.group(3), json.loads(body)))
        if match := re.fullmatch(r"/upload/([^/]+)/(.+)", self.path):
            with owner.lock:
                run = owner.runs.setdefault(unquote(match.group(1)), ServerRun(unquote(match.group(1))))
                run.files[unquote(match.group(2))] = body
            return self._reply(200, {})
        return self._reply(404, {"error": f"no such path {self.path}"})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _graphql(owner: WandbServer, name: str, variables: dict[str, Any], query: str) -> dict[str, Any]:
    if name == "UpsertBucket":
        return _upsert(owner, variables)
    if name == "RunResumeStatus":
        return {"model": _model(owner, variables)}
    if name == "CreateRunFiles":
        files = [
            {"name": path, "uploadUrl": f"{owner.url}/upload/{variables['run']}/{path}"} for path in variables["files"]
        ]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
    if name == "ServerFeaturesQuery":
        return {"serverInfo": {"features": []}}
    if "viewer" in query:
        viewer = {"id": "u1", "entity": "tester", "username": "tester", "email": "t@example.org", "flags": "{}"}
        return {"viewer": {**viewer, "teams": {"edges": []}, "apiKeys": {"edges": []}}}
    return {}


def _upsert(owner: WandbServer, variables: dict[str, Any]) -> dict[str, Any]:
    name = variables["name"]
    inserted = name not in owner.runs
    run = owner.runs.setdefault(name, ServerRun(name))
    run.project = variables.get("project") or run.project
    run.group = variables.get("groupName") or run.group
    run.job_type = variables.get("jobType") or run.job_type
    run.display_name = variables.get("displayName") or run.display_name
    run.tags = variables.get("tags") or run.tags
    if variables.get("config"):
        run.config = json.loads(variables["config"])
    return {"upsertBucket": {"bucket": _bucket(run, variables.get("entity")), "inserted": inserted}}


def _bucket(run: ServerRun, entity: str | None) -> dict[str, Any]:
    project = {"id": "p1", "name": run.project, "entity": {"id": "e1", "name": entity or "tester"}}
    bucket = {"id": f"id-{run.name}", "name": run.name, "displayName": run.display_name, "description": None}
    return {**bucket, "config": "{}", "sweepName": None, "project": project, "historyLineCount": len(run.history)}


def _model(owner: WandbServer, variables: dict[str, Any]) -> dict[str, Any]:
    model = {"id": "p1", "name": variables.get("project"), "entity": {"id": "e1", "name": "tester"}}
    run = owner.runs.get(variables["name"])
    if run is None:
        return {**model, "bucket": None}
    tail = [json.dumps(row) for row in run.rows[-1:]]
    bucket: dict[str, Any] = {"id": f"id-{run.name}", "name": run.name, "summaryMetrics": json.dumps(run.summary)}
    bucket |= {"displayName": run.display_name, "config": json.dumps(run.config), "tags": run.tags}
    bucket |= {"historyLineCount": len(run.history), "eventsLineCount": 0, "logLineCount": 0}
    bucket |= {"historyTail": json.dumps(tail), "eventsTail": "[]", "wandbConfig": json.dumps({"t": {}})}
    return {**model, "bucket": bucket}


def _file_stream(owner: WandbServer, name: str, message: dict[str, Any]) -> dict[str, Any]:
    run = owner.runs.setdefault(name, ServerRun(name))
    for file, chunk in (message.get("files") or {}).items():
        if file == "wandb-history.jsonl":
            for index, line in enumerate(chunk["content"]):
                run.history[chunk["offset"] + index] = json.loads(line)
        elif file == "wandb-summary.json":
            run.summary = json.loads(chunk["content"][-1])
    if message.get("complete"):
        run.complete = True
        run.exit_code = message.get("exitcode")
    return {"exitcode": None, "limits": {}}
