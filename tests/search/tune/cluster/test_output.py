"""Where Ray's own words go: to a file, while ours stay where they were."""

import inspect
import io
import logging
import os
import sys
from pathlib import Path

import pytest
import ray
from ray._private import worker

from search.tune.cluster.output import raw_lines_held, raw_lines_to

log = logging.getLogger("segsearch")


def test_what_we_change_is_there() -> None:
    """Without it, the last twenty lines of a dead part's log come on the terminal."""
    assert list(inspect.signature(worker.print_to_stdstream).parameters) == ["data", "ignore_prefix"], ray.__version__
    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages), ray.__version__


def test_rays_lines_go_to_the_file_and_ours_where_they_went(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "segsearch.log"
    path.write_text("before\n")
    plain = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
    monkeypatch.setattr(sys, "stderr", plain)
    handler = logging.StreamHandler(plain)
    log.addHandler(handler)
    printed = worker.print_to_stdstream
    try:
        with raw_lines_to(path):
            os.write(2, b"[rpc_client.h:204] Failed to connect to GCS\n")
            worker.print_to_stdstream({"lines": ["Raylet is terminated.\n  [state-dump]"], "pid": "raylet"}, False)
            log.error("ours")
            print("printed by us", file=sys.stderr)
            assert sys.stderr is not plain
    finally:
        log.removeHandler(handler)
    assert (sys.stderr, handler.stream, worker.print_to_stdstream) == (plain, plain, printed)
    os.write(2, b"after\n")
    assert path.read_text() == (
        "before\n[rpc_client.h:204] Failed to connect to GCS\nRaylet is terminated.\n  [state-dump]\n"
    )
    assert capfd.readouterr().err == "ours\nprinted by us\nafter\n"


def test_lines_of_a_start_are_held_and_kept_for_debugging(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "segsearch"), raw_lines_held():
        os.write(2, b"raw\n")
    assert capfd.readouterr().err == ""
    assert caplog.messages == ["ray: raw"]
