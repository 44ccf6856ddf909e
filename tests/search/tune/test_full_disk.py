"""Twenty full disks at random moments, and the search still ends as if nothing had happened."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

ROUNDS = 20
DRIVER = """
import json, logging, os, random, sys, tempfile
from pathlib import Path

import ray
from ray import tune

from search.config.load import load_config
from search.machine.full_disk import disk_stop
from search.runs.folder import create_run
from search.runs.journal import read_events
from search.runs.tables import read_table
from search.space.search import Search
from search.study.storage import close_study, open_study
from search.tune.search import run_search

TRIALS, EPOCHS = 12, 4
RATES = [round(0.002 * (number + 1), 4) for number in range(TRIALS)]
rounds, folder = int(sys.argv[2]), Path(sys.argv[1])
logging.basicConfig(level=logging.CRITICAL)


def worth(lr, epoch):
    return 1.0 - abs(lr - 0.03) - 1.0 / (epoch + 1)


def train(spec):
    lr, epochs = spec["train"]["optimizer"]["lr"], spec["train"]["train"]["epochs"]
    files = [Path(checkpoint) / "epoch" for checkpoint in spec["checkpoints"]]
    saved = [int(file.read_text()[:4]) for file in files if file.exists()]
    done = next((epoch for epoch in saved if epoch <= spec["reached"]), 0)
    for epoch in range(done + 1, epochs + 1):
        report = {"number": spec["number"], "epoch": epoch, "best_epoch": epoch, "finished": epoch == epochs,
                  "val/iou": worth(lr, epoch), "time/train_s": 0.0}
        with tempfile.TemporaryDirectory() as written:
            (Path(written) / "epoch").write_text(f"{epoch:4d}" + 30_000 * " ")
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(written))


def new_run(place):
    tree = {
        "name": "tiny", "data": {"root": "synthetic"}, "train": {"epochs": EPOCHS},
        "space": {"optimizer.lr": {"uniform": [0.001, 0.1]}},
        "search": {"num_samples": TRIALS, "sampler": "random", "scheduler": {"name": "none"}, "gate": False},
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0}, "results": str(place),
    }
    (folder / "tiny.yaml").write_text(json.dumps(tree))
    config = load_config(folder / "tiny.yaml")
    paths = create_run(config, "search")
    study = open_study(paths.storage_url, paths.name, mode="max", sampler=None)
    for lr in RATES:
        study.enqueue_trial({"optimizer.lr": lr})
    close_study(study)
    return config, paths


def fill(place, left):
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    (place / "filler").write_bytes(bytes(max(0, free - left)))


def tables(paths):
    rows = read_table(paths.trials)
    epochs = read_table(paths.epochs)
    return [
        [[row[key] for key in ("number", "state", "value", "best_epoch", "epochs")] for row in rows],
        [row["param/optimizer.lr"] for row in rows],
        [[row[key] for key in ("number", "epoch", "val/iou")] for row in epochs],
    ]


ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
small, rng, faults = folder / "small", random.Random(7), []
config, paths = new_run(small)
for number in range(rounds):
    fill(small, rng.randint(0, 90_000))
    try:
        if run_search(Search.of(config), paths, folder, trainable=train):
            break
    except Exception as error:
        fault = disk_stop(error)
        if fault is None:
            raise
        faults.append(fault)
    (small / "filler").unlink()
    assert paths.events.read_bytes().endswith(b"\\n") or not paths.events.exists(), "half a line"
    assert not [event for event in read_events(paths.events) if event.KIND in ("error", "interrupted")]
ended = run_search(Search.of(config), paths, folder, trainable=train)
undisturbed = [
    [[number, "complete", worth(lr, EPOCHS), EPOCHS, EPOCHS] for number, lr in enumerate(RATES)],
    RATES,
    [[number, epoch, worth(lr, epoch)] for number, lr in enumerate(RATES) for epoch in range(1, EPOCHS + 1)],
]
print(json.dumps({"ended": ended, "faults": faults, "same": tables(paths) == undisturbed}), flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_twenty_full_disks_change_nothing(tmp_path: Path) -> None:
    """The run lies on a small file system of its own, in a mount namespace that ends with the process."""
    import json

    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare for a disk of its own")
    (tmp_path / "small").mkdir()
    (tmp_path / "driver.py").write_text(DRIVER)
    mount = f'mount -t tmpfs -o size=16m tmpfs {tmp_path / "small"} || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "driver.py", str(tmp_path), str(ROUNDS)],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "RAY_ADDRESS": "", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
             "TUNE_PRINT_ALL_TRIAL_ERRORS": "0", "RAY_AIR_NEW_OUTPUT": "0",
             "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ended"]
    assert told["same"]
    assert len(told["faults"]) == ROUNDS
