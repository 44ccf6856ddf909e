"""Trials that share a GPU: one that takes more than its share harms nobody but itself.

Ray counts a GPU that is not there; torch's memory is limited on the CPU as a cap limits it on a GPU. The last test is
the same on a real one.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState
from places import ROOT

from search.runs.events import Epoch, Error, Event, Retried
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.study.observations import FAILURE_ATTR, MEMORY_CONSTRAINT, PARAMS_ATTR
from search.study.storage import stored_trials
from search.tune.packing.rate import TOLERANCE

pytestmark = pytest.mark.slow

SUPPORT = ROOT / "tests" / "support"
SMALL, GREEDY = 4, 64
MIB = 2**20
LITTLE, ENOUGH = 24 * MIB, 88 * MIB
"""The pretended GPU: of both, half holds the small trial and not the greedy one; the larger whole holds that too."""


class CappedSearch:
    """A search of a small and a greedy trial, in a driver of its own."""

    def __init__(
        self,
        folder: Path,
        *widths: int,
        gpu_bytes: int = LITTLE,
        epochs: int = 3,
        retry: bool = False,
        share: float | str = 0.5,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.paths = RunPaths(folder / "results" / "capped")
        self.shares_file = folder / "shares.txt"
        self.shares_file.touch()
        self.environment = {
            "RAY_ADDRESS": "", "SHARES_FILE": str(self.shares_file), "PRETENDED_GPU_BYTES": str(gpu_bytes),
            "TRIALS_THAT_MEET": str(len(widths)), "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        }  # fmt: skip
        tree = {
            "name": "capped",
            "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 32},
                     "cache_dir": str(folder.parent / "cache")},
            "model": {"base_channels": SMALL, "depth": 2},
            "augment": {"policy": "flip"},
            "train": {"epochs": epochs, "batch_size": 8, "precision": "fp32"},
            "space": {"model.base_channels": {"choice": [SMALL, GREEDY]}},
            "search": {"num_samples": len(widths), "sampler": "random", "scheduler": {"name": "none"},
                       "enqueue": [{"model.base_channels": width} for width in widths if width != SMALL]},
            "resources": {"cpus_per_trial": 1, "gpus_per_trial": share, "retry_out_of_memory": retry},
            "results": str(folder / "results"),
        }  # fmt: skip
        (folder / "capped.yaml").write_text(json.dumps(tree))

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", str(SUPPORT / "capped_search.py"), str(self.folder)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, **self.environment, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(ROOT)])},
        )  # fmt: skip

    def run(self) -> str:
        process = self.start()
        try:
            said = process.communicate(timeout=240)[0]
        finally:
            kill_group(process)
        assert said.rstrip().endswith("\nended"), said[-3000:]
        return said

    def trials(self) -> dict[int, FrozenTrial]:
        """By width."""
        return {
            t.user_attrs[PARAMS_ATTR]["model.base_channels"]: t for t in stored_trials(self.paths.storage_url, "capped")
        }

    def losses(self, width: int) -> list[tuple[float, float, float]]:
        number = self.trials()[width].number
        metrics = [row.metrics for row in epochs_by_trial(read_events(self.paths.events)).get(number, {}).values()]
        return [(row["train/loss"], row["val/loss"], row["val/iou"]) for row in metrics]

    def shares(self, width: int) -> list[float]:
        """The share that a trial had of the GPU, each time that it began."""
        number = self.trials()[width].number
        rows = [line.split() for line in self.shares_file.read_text().splitlines()]
        return [float(share) for begun, share, _ in rows if int(begun) == number]

    def happened(self, kind: type[Event]) -> list[Event]:
        return [seen for seen in read_events(self.paths.events) if isinstance(seen, kind)]


def kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def test_a_greedy_trial_fails_alone_and_its_neighbours_losses_are_bitwise_the_same(tmp_path: Path) -> None:
    alone = CappedSearch(tmp_path / "alone", SMALL, epochs=60)
    shared = CappedSearch(tmp_path / "shared", SMALL, GREEDY, epochs=60)
    alone.run()
    shared.run()
    trials = shared.trials()
    assert (trials[GREEDY].state, trials[GREEDY].user_attrs[FAILURE_ATTR]) == (TrialState.FAIL, "out of memory")
    assert trials[GREEDY].constraints[MEMORY_CONSTRAINT] == 1.0
    assert (trials[SMALL].state, trials[SMALL].constraints[MEMORY_CONSTRAINT]) == (TrialState.COMPLETE, -1.0)
    assert shared.losses(GREEDY) == []
    assert len(shared.losses(SMALL)) == 60
    assert shared.losses(SMALL) == alone.losses(SMALL)
    (error,) = shared.happened(Error)
    assert error.time < shared.happened(Epoch)[-1].time, "the greedy one failed while its neighbour ran"


def test_a_greedy_trial_tries_a_whole_gpu_once_when_its_neighbour_has_ended(tmp_path: Path) -> None:
    """In vain here; the next test has a GPU that is large enough."""
    search = CappedSearch(tmp_path / "run", SMALL, GREEDY, gpu_bytes=LITTLE, retry=True)
    said = search.run()
    trials = search.trials()
    assert trials[SMALL].state == TrialState.COMPLETE
    assert trials[GREEDY].state == TrialState.FAIL
    assert trials[GREEDY].user_attrs[FAILURE_ATTR] == "out of memory"
    assert len(search.happened(Error)) == 1
    assert trials[GREEDY].constraints[MEMORY_CONSTRAINT] == 1.0
    assert search.shares(GREEDY) == [0.5, 1.0]
    assert search.shares(SMALL) == [0.5]
    (retried,) = search.happened(Retried)
    assert retried.number == trials[GREEDY].number
    assert "ran out of memory on 0.5 of a GPU after epoch 0 and will continue alone on a whole one" in said


def test_a_driver_that_is_killed_gives_the_greedy_trial_a_whole_gpu_after_the_resume(tmp_path: Path) -> None:
    search = CappedSearch(tmp_path / "run", SMALL, GREEDY, gpu_bytes=ENOUGH, epochs=25, retry=True)
    process = search.start()
    deadline = time.monotonic() + 180
    try:
        while not search.happened(Retried):
            assert process.poll() is None, process.communicate()[0][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        kill_group(process)
    assert {trial.state for trial in search.trials().values()} == {TrialState.RUNNING}
    search.run()
    assert {trial.state for trial in search.trials().values()} == {TrialState.COMPLETE}
    assert {trial.constraints[MEMORY_CONSTRAINT] for trial in search.trials().values()} == {-1.0}
    assert len(search.losses(GREEDY)) == 25
    assert search.happened(Error) == []
    assert search.shares(SMALL) == [0.5, 0.5]
    assert search.shares(GREEDY)[0] == 0.5
    assert set(search.shares(GREEDY)[1:]) == {1.0}
    assert len(search.happened(Retried)) == 1


def test_with_auto_trials_get_the_share_that_was_measured(tmp_path: Path) -> None:
    """What this machine measures is its own affair; that the search does what was measured is not."""
    search = CappedSearch(tmp_path / "run", SMALL, gpu_bytes=2**40, epochs=1, share="auto")
    tree = json.loads((search.folder / "capped.yaml").read_text())
    tree["search"] |= {"num_samples": 2, "enqueue": []}  # the two points that there are
    (search.folder / "capped.yaml").write_text(json.dumps(tree))
    said = search.run()
    packing = json.loads(search.paths.run.read_text())["packing"]
    assert "error" not in packing
    assert packing["largest"] == f"model.base_channels={GREEDY}, train.batch_size=8"
    assert packing["limit"] == 2, "there are two cores"
    rates = packing["images_per_s"]
    assert set(rates) == {"1", "2"}
    kept = rates["2"] >= (1 - TOLERANCE) * rates["1"]
    assert packing["trials_per_gpu"] == (2 if kept else 1)
    shares = [line.split()[1] for line in search.shares_file.read_text().splitlines()]
    assert shares == ["0.5" if kept else "1.0"] * 2
    assert f"packing: 2 trials a GPU {'kept' if kept else 'slower than one alone'}" in said
    assert {trial.state for trial in search.trials().values()} == {TrialState.COMPLETE}
