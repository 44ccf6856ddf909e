"""What can go wrong with a request to the loopback Yandex Disk."""

from dataclasses import dataclass, field
from typing import Literal

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
