"""Training a trial of a run again, from nothing, and saying whether it came out the same.

The record is the journal's: every epoch's metrics. The trial is trained in this process with its config, its seed, its
number of threads and its kind of device; a fork of another trial starts from that one's weights, so the chain of its
parents is trained first. A trial that waited at a rung, was resumed or lost its worker is trained in one go: none of
that should affect the result. Nothing is written into the run's folder.
"""

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from search.config.tree import SearchConfig
from search.errors import ResourceError, RunError
from search.runs.environment import describe_environment, differences
from search.runs.folder import stored_config
from search.runs.journal import applied_by_trial, epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.runs.records import read_run
from search.space.search import Search
from search.stages.checking import same_data
from search.stages.job import trial_configs
from search.stages.sealing import newest_readable
from search.study.lives import read_lives
from segcore.checkpoint.state import BestModel, read_checkpoint, save_checkpoint
from segcore.config import TrainConfig
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.training.device import begin_trial
from segcore.training.loop import EpochResult, fit
from segcore.training.machine import describe_machine

log = logging.getLogger("segsearch")

_OF_THE_MOMENT = ("time/", "cost/latency")
"""Metrics that do not depend on what was learned, such as times."""
_NOISE_FACTOR = 2.0


@dataclass(frozen=True)
class Recorded:
    """What a run knows of one trial."""

    number: int
    train: TrainConfig
    epochs: dict[int, dict[str, float]]
    machine: dict[str, Any]
    parent: tuple[int, int] | None = None


def reproduce(
    paths: RunPaths, number: int, console: Console, *, num_epochs: int | None = None, within: float | None = None
) -> dict[str, Any]:
    """Trains a trial again and compares.

    Args:
        paths: The run.
        number: The trial; 0 of a single training run.
        console: Where progress is shown.
        num_epochs: Stop after this epoch; default: the trial's last one.
        within: Largest difference of the run's metric that counts as a match; default: none at all, or what two
            trainings on this GPU differ by.

    Returns:
        A record: `matched`, `how`, `epochs` (one row each: `epoch`, `recorded`, `new`, `difference`, `equal`),
        `weights` (`equal`, `different` or `not compared`), and what else is of interest.

    Raises:
        RunError: There is no such trial, nothing of it is recorded, or the data has changed.
        ResourceError: It trained on a GPU, and there is none.
    """
    config = stored_config(paths)
    trials = recorded_trials(config, paths)
    if number not in trials:
        raise RunError(f"{paths.name!r} has no trial {number} with a reported epoch; valid: {_numbers(trials)}")
    trial = trials[number]
    device = _device(trial)
    last = min(num_epochs or max(trial.epochs), max(trial.epochs))
    _, cache_path = same_data(config, paths, console)
    metric = config.search.metric
    with open_cache(cache_path) as cache, tempfile.TemporaryDirectory(prefix="segsearch-reproduce-") as folder:

        def train_again() -> list[EpochResult]:
            return list(_train(trials, number, last, cache, metric, device, Path(folder)))

        results = train_again()
        rows = compare(trial.epochs, {result.epoch: result.metrics for result in results}, metric)
        best = results[-1].state.best if results else None
        weights = _compare_weights(best, newest_readable(paths, number))
        record = {"run": paths.name, "trial": number, "metric": metric, "epochs": rows, "weights": weights}
        record |= {"parent": list(trial.parent) if trial.parent else None, "of_epochs": max(trial.epochs)}
        noise = None
        if device.type == "cuda" and within is None and not _is_bitwise(rows, weights):
            first = {result.epoch: result.metrics for result in results}
            again = {result.epoch: result.metrics for result in train_again()}
            noise = largest_difference(compare(first, again, metric))
    record |= verdict(rows, weights, within=within, noise=noise)
    if not record["matched"] or record["how"] != "bitwise":
        now = {**describe_environment(), "machine": describe_machine(device)}
        then = {**read_run(paths).tree(), "machine": trial.machine}
        record["differs"] = differences(then, now)
    return record


def recorded_trials(config: SearchConfig, paths: RunPaths) -> dict[int, Recorded]:
    """Every trial of a run that reported an epoch, by number."""
    events = read_events(paths.events)
    proofs, epochs = applied_by_trial(events), epochs_by_trial(events)
    search = Search.of(config)
    configs = {0: search.base}
    parents: dict[int, tuple[int, int]] = {}
    if read_run(paths).kind == "search":
        configs = trial_configs(search, paths)
        parents = {life.number: life.parent for life in read_lives(paths).values() if life.parent is not None}
    found = {}
    for number, rows in epochs.items():
        if number in configs:
            machine = dict(proofs[number][0].machine) if number in proofs else {}
            parent = parents.get(number)
            metrics = {epoch: dict(row.metrics) for epoch, row in rows.items()}
            found[number] = Recorded(number, configs[number], metrics, machine, parent)
    return found


def compare(
    recorded: Mapping[int, Mapping[str, Any]], new: Mapping[int, Mapping[str, Any]], metric: str
) -> list[dict[str, Any]]:
    """A row for each epoch that was trained again; `equal` is true when all its metrics are equal bit by bit.

    Args:
        recorded: Epoch -> metrics, as the journal has them.
        new: Epoch -> metrics of the new training.
        metric: The metric whose values and difference each row shows.
    """
    rows = []
    for epoch in sorted(new):
        before, after = recorded.get(epoch, {}), new[epoch]
        shared = [key for key in after if key in before and not key.startswith(_OF_THE_MOMENT)]
        rows.append(
            {
                "epoch": epoch,
                "recorded": before.get(metric),
                "new": after[metric],
                "difference": after[metric] - before[metric] if metric in before else None,
                "equal": bool(shared) and all(before[key] == after[key] for key in shared),
                "different": [key for key in shared if before[key] != after[key]],
            }
        )
    return rows


def verdict(
    rows: list[dict[str, Any]], weights: str, *, within: float | None = None, noise: float | None = None
) -> dict[str, Any]:
    """Whether it matched, and how: `bitwise`, or within the allowed or the measured difference.

    Args:
        rows: From `compare`.
        weights: `equal`, `different` or `not compared`.
        within: Largest difference that was allowed, if one was given.
        noise: What two trainings on this GPU differ by, where it was measured.
    """
    largest = largest_difference(rows)
    record: dict[str, Any] = {"largest_difference": largest, "noise": noise}
    if _is_bitwise(rows, weights):
        return {**record, "matched": True, "how": "bitwise"}
    allowed = within if within is not None else _NOISE_FACTOR * noise if noise is not None else None
    if allowed is not None and largest is not None and largest <= allowed:
        how = f"within {allowed:.3g}" + ("" if within is not None else ", twice what two trainings here differ by")
        return {**record, "matched": True, "how": how}
    return {**record, "matched": False, "how": "different"}


def largest_difference(rows: list[dict[str, Any]]) -> float | None:
    """Largest difference of the run's metric over all epochs; None where a value is missing or not a number."""
    found = [row["difference"] for row in rows]
    if not found or any(value is None or math.isnan(value) for value in found):
        return None
    return float(max(map(abs, found)))


def _is_bitwise(rows: list[dict[str, Any]], weights: str) -> bool:
    return bool(rows) and all(row["equal"] for row in rows) and weights != "different"


def _train(
    trials: dict[int, Recorded],
    number: int,
    last: int,
    cache: SampleCache,
    metric: str,
    device: torch.device,
    folder: Path,
) -> Iterator[EpochResult]:
    """Trains a trial up to an epoch; its parent first, up to the epoch at which it was forked."""
    trial, start = trials[number], None
    if trial.parent is not None:
        parent, epoch = trial.parent
        if parent not in trials:
            raise RunError(f"trial {number} continues trial {parent}, of which nothing is recorded")
        forked = folder / f"start-{number}"
        for result in _train(trials, parent, epoch, cache, metric, device, folder):
            if result.epoch == epoch:
                save_checkpoint(forked, result.state)
        start = read_checkpoint(forked, as_fork=True)
        log.info("trial %d continues from epoch %d of trial %d, which was trained again", number, epoch, parent)
    threads = int(trial.machine.get("threads", torch.get_num_threads()))
    begin_trial(threads, gpu_fraction=1.0)
    epochs = fit(trial.train, cache, metric=metric, checkpoint=start, num_cpus=threads, device=device)
    with closing(epochs):
        for result in epochs:
            log.info("trial %d, epoch %d/%d: %s %.4f", number, result.epoch, last, metric, result.metrics[metric])
            yield result
            if result.epoch >= last:
                return


def _compare_weights(new: BestModel | None, kept: BestModel | None) -> str:
    """Compares the best epoch's weights, if the trial's checkpoint still exists and holds that epoch."""
    if new is None or kept is None or new.epoch != kept.epoch:
        return "not compared"
    same = new.weights.keys() == kept.weights.keys()
    return "equal" if same and all(torch.equal(new.weights[k], kept.weights[k]) for k in kept.weights) else "different"


def _device(trial: Recorded) -> torch.device:
    kind = str(trial.machine.get("device", "cuda" if torch.cuda.is_available() else "cpu"))
    if kind == "cuda" and not torch.cuda.is_available():
        raise ResourceError(f"trial {trial.number} trained on a GPU ({trial.machine.get('gpu')}); there is none here")
    return torch.device(kind)


def _numbers(trials: Mapping[int, Recorded]) -> str:
    return ", ".join(map(str, sorted(trials))) or "none yet"
