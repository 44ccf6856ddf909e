"""A cluster of two nodes on one machine: both look at what is shared, and one of them breaks what is trained on it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from places import ROOT

from search.config.load import load_config
from search.runs.events import Error, Moved, Placed
from search.runs.folder import create_run
from search.runs.journal import read_events
from search.runs.tables import read_table

DRIVER = """
import json, logging, os, sys, time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

folder = Path(sys.argv[1])
logging.basicConfig(level=logging.WARNING)
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"], os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "1", "0"
cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

from search.config.load import load_config
from search.runs.paths import RunPaths
from search.space.search import Search
from search.tune.cluster import nodes, sharing
from search.tune.search import run_search

(other,) = nodes.other_nodes()
shared = sharing.Shared.of(folder / "results", folder / "tiny.yaml", [])
print("others:", sharing.require_shared(shared))


def blind(shared, tokens, name):
    return sharing.Seen((("results", f"seen from {ray.get_runtime_context().get_node_id()}"),))


sharing.look_from_a_node = blind
try:
    sharing.require_shared(shared)
except sharing.ResourceError as error:
    print(json.dumps([str(other), other.id, str(error).splitlines()[1]]))


def train(spec):
    from ray import tune

    if ray.get_runtime_context().get_node_id() == other.id:
        (folder / "broke").touch()
        raise RuntimeError("CUDA error: device-side assert triggered")
    deadline = time.monotonic() + 60
    while not (folder / "broke").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    tune.report({"number": spec["number"], "epoch": 1, "best_epoch": 1, "finished": True, "val/iou": 0.5,
                 "val/threshold": 0.5, "train/loss": 1.0, "time/images_per_s": 1.0, "time/train_s": 0.0})


config = load_config(folder / "tiny.yaml")
paths = RunPaths(folder / "results" / config.name)
print("ended:", run_search(Search.of(config), paths, folder, trainable=train), flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_the_other_node_is_asked_and_left_when_it_breaks_trials(tmp_path: Path) -> None:
    tree = {
        "name": "tiny",
        "data": {"root": "synthetic"},
        "train": {"epochs": 1},
        "space": {"optimizer.lr": {"uniform": [0.001, 0.1]}},
        "search": {"num_samples": 6, "sampler": "random", "scheduler": {"name": "none"}},
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
        "results": str(tmp_path / "results"),
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(tree))
    paths = create_run(load_config(tmp_path / "tiny.yaml"), "search")
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # its sockets, and the address that a cluster leaves behind
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=200, env={**os.environ, "RAY_ADDRESS": "", "RAY_TMPDIR": short},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    others, told, ended = [line for line in done.stdout.splitlines() if line.startswith(("others", "[", "ended"))]
    assert (others, ended) == ("others: 1", "ended: True")
    name, broken, message = json.loads(told)
    assert message == f"  {name}: results seen from {broken}"

    events = read_events(paths.events)
    moved = [event for event in events if isinstance(event, Moved)]
    assert {event.node for event in moved} == {broken}
    assert 1 <= len(moved) <= 3, "it is avoided by all once two trials have failed on it; a third may be under way"
    assert not [event for event in events if isinstance(event, Error)]
    last = {event.number: event.node for event in events if isinstance(event, Placed)}
    assert len(last) == 6
    assert broken not in last.values()
    assert {event.node for event in events if isinstance(event, Placed)} > {broken}
    assert [row["state"] for row in read_table(paths.trials)] == ["complete"] * 6
