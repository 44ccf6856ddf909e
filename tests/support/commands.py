"""The command as a user starts it: a process of its own, in a group of its own, that a test may kill."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def start_segsearch(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Starts `segsearch` in a folder, with a Ray of its own; its output, errors too, is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", "from search.cli import main; main()", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": ""},
    )  # fmt: skip
