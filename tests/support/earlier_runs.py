"""Runs that version 0.1.0 made, before run record and card had a version: `tests/fixtures/runs_of_format_1.tar.gz`.

`ended` is a confirmed search of four trials; `killed` one of five that was killed with SIGKILL, its trials at rungs or
in mid-training. Both search `optimizer.lr` and `model.base_channels` on synthetic images of 32 px. The archive holds
`@ROOT@` where the folder stood that they were made in, and `@HOST@` for the machine.
"""

import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

from places import ROOT

ARCHIVE = ROOT / "tests" / "fixtures" / "runs_of_format_1.tar.gz"


def unpack_earlier_runs(folder: Path) -> Path:
    """Puts the runs into `folder/results` as if they had been made there, and returns that folder of runs."""
    results = folder / "results"
    results.mkdir(parents=True)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(results, filter="data")
    shutil.move(results / "exported", folder / "exported")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for path in [*results.rglob("*.json"), *results.rglob("*.yaml"), *(folder / "exported").glob("*.json")]:
        text = path.read_text(encoding="utf-8")
        text = text.replace("@ROOT@", str(folder)).replace("@HOST@", socket.gethostname())
        if path.name == "run.json":
            text = text.replace('"pid": 3806', f'"pid": {dead.pid}')
        path.write_text(text, encoding="utf-8")
    return results
