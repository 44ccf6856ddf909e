"""Checks of the room that a run needs: on the disk of its results, and in the memory of its loader processes."""

import logging
from dataclasses import dataclass
from pathlib import Path

from search.space.search import Search
from search.stages.checks.check import Checked, NotChecked, Preparation
from segcore.config import TrainConfig
from segcore.disk import room_at, shown_bytes

log = logging.getLogger("segsearch")

MOST_MODELS = 12
"""Models whose size is looked at; a space may hold more than there is time for."""
NEAR = 0.8
"""A need above this share of what is free is told."""
_MOMENTS = {"adamw": 2, "nadam": 2, "sgd": 1}
"""Numbers that an optimizer keeps for each weight; one that is not named here is taken to keep none."""
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Need:
    """What a run will write to the disk of its results, in bytes.

    Attributes:
        least: What it cannot do without: the smallest model, one trial at a time.
        likely: With the largest model, and what trials write before they delete what is older.
    """

    least: int
    likely: int


def results_disk(job: Preparation) -> Checked | NotChecked:
    """The disk of the results has room for the checkpoints, the sealed model and the tables.

    Where it has not, that is told and the run begins all the same: it stops when the disk is full, and a resume goes
    on when there is room, which may be made meanwhile.
    """
    results = Path(job.search.config.results)
    room = room_at(results)
    if room is None:
        return NotChecked(f"the system does not say how much room {results} has")
    need = need_of(job.search, is_search=job.kind == "search")
    if need.least > room.free:
        found = f"the run does not fit: it writes {shown_bytes(need.least)} or more"
    elif need.likely > NEAR * room.free:
        found = f"the run may not fit: it writes up to {shown_bytes(need.likely)}"
    else:
        return Checked(f"up to {shown_bytes(need.likely)} are written, and in {results} {room}")
    log.warning(
        "results: %s, and on the disk of %s only %s. It stops when the disk is full, and a resume goes on when there "
        "is room; --results takes another folder, and resources.checkpoints_gb keeps fewer checkpoints",
        found, results, room,
    )  # fmt: skip
    return Checked(found)


def need_of(search: Search, *, is_search: bool) -> Need:
    """What a run will write, from the sizes of its models.

    A trial that trains keeps the weights of its last and its best epoch and the optimizer's state, and for a moment
    those of the checkpoint before; one that has ended keeps the best weights. Half a megabyte a trial is for
    everything else.
    """
    sizes = [_sizes(config) for config in _models(search)]
    config = search.config
    trials = config.search.num_samples if is_search else 1
    limit = config.resources.checkpoints_gb
    most_kept = float("inf") if limit is None else limit * _GIGABYTE
    weights, whole = min(weights for weights, _ in sizes), min(whole for _, whole in sizes)
    least = min(trials * weights, most_kept) + whole + weights
    weights, whole = max(weights for weights, _ in sizes), max(whole for _, whole in sizes)
    confirm = config.search.confirm
    again = confirm.top_k * confirm.seeds if confirm is not None and is_search else 0
    side_by_side = config.search.max_concurrent
    running = 2 * whole * (side_by_side if isinstance(side_by_side, int) else min(2, trials))
    likely = min(trials * weights, most_kept) + running + (again + 1) * weights + trials * 500_000
    return Need(int(least), int(likely))


def loader_memory(job: Preparation) -> Checked | NotChecked:
    """Shared memory has room for what the loader processes prepare; where it has not, fewer are used, or none."""
    from segcore.data.loader_processes import processes_that_fit

    config = job.search.base
    workers = config.train.num_workers
    if workers in ("auto", 0):
        return NotChecked(f"train.num_workers is {workers}")
    assert isinstance(workers, int)
    height, width = config.data.image_hw
    num_images = job.index.counts()["train"] if job.index is not None else 0
    batch = config.train.batch_size
    fit, note = processes_that_fit(workers, 4 * height * width * batch, -(-num_images // batch) or workers * 4)
    if note is not None:
        log.warning("%s", note)
    return Checked(f"{fit} of {workers} loader processes have room")


def _models(search: Search) -> list[TrainConfig]:
    """Configs of the space with different models: the own one first, and the largest and the smallest among them."""
    from search.tune.packing.largest import candidates

    found: dict[str, TrainConfig] = {}
    for config in (search.base, *candidates(search)):
        found.setdefault(repr((config.model, config.optimizer.name, config.train.ema_decay > 0)), config)
    configs = list(found.values())
    step = max(1, -(-len(configs) // MOST_MODELS))
    return configs[::step]


def _sizes(config: TrainConfig) -> tuple[int, int]:
    """Bytes of a model's weights, and of a whole checkpoint of it."""
    from segcore.models.build import build_model_outline

    model = build_model_outline(config.model)
    tensors = [*model.parameters(), *model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    trained = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    average = weights if config.train.ema_decay > 0 else 0
    return weights, weights + _MOMENTS.get(config.optimizer.name, 0) * trained + average
