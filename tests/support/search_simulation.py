"""Runs whole searches on learning-curve tasks, with the real searchers and schedulers, on a clock that only counts.

Workers train side by side; an epoch takes its time on the clock and nothing else. The calls are Ray's, in Ray's order
(`TuneController._process_trial_result`): the scheduler decides on a report, then the searcher is told of it, then of
the trial's end.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from ray.tune.schedulers import TrialScheduler
from search_tasks import EPOCHS, Task

from search.config.tree import SchedulerConfig
from search.sampling.proposer import Proposer
from search.schedulers.build import build_promotions, decision_epochs
from search.schedulers.setting import Setting
from search.space.domains import Choice
from search.tune.ray_scheduler import build_scheduler
from segcore.objective import Objective

ETA = 3
OBJECTIVE = Objective("value")


class Method(Protocol):
    """A search: what to train next, and what to do after an epoch."""

    def next(self) -> tuple[int, dict[str, Any], int]:
        """`(trial, settings, epochs that it has trained already)`."""

    def report(self, trial: int, epoch: int, value: float) -> bool:
        """Whether the trial goes on."""


class Ours:
    """A `Proposer` and one of our schedulers, as `segsearch run` uses them."""

    def __init__(
        self, task: Task, seed: int, *, sampler: str, scheduler: str = "asha", promote: bool = True,
        num_samples: int = 10**6,
    ) -> None:  # fmt: skip
        options = SchedulerConfig(name=scheduler, grace_period=1, reduction_factor=ETA, promote=promote)  # type: ignore[arg-type]
        setting = Setting(OBJECTIVE, EPOCHS)
        self._promotions = build_promotions(options, setting)
        self._scheduler = build_scheduler(options, replace(setting, promotions=self._promotions))
        self._proposer = Proposer(
            task.space, sampler, seed=seed, num_samples=num_samples, max_epochs=EPOCHS,
            rungs=decision_epochs(options, EPOCHS), objective=OBJECTIVE,
        )  # fmt: skip
        self._trials: list[SimpleNamespace] = []

    def next(self) -> tuple[int, dict[str, Any], int]:
        """As in `Method`."""
        number = self._promotions.next(is_last_call=False) if self._promotions else None
        if number is not None:
            return number, self._trials[number].flat, self._trials[number].epoch
        number = len(self._trials)
        flat, origin = self._proposer.propose(number)
        self._proposer.started(number, flat, origin)
        self._trials.append(SimpleNamespace(trial_id=str(number), config={"number": number}, flat=flat, epoch=0))
        self._scheduler.on_trial_add(None, self._trials[number])
        return number, flat, 0

    def report(self, trial: int, epoch: int, value: float) -> bool:
        """As in `Method`."""
        self._trials[trial].epoch = epoch
        result = {"epoch": epoch, "value": value}
        decision = self._scheduler.on_trial_result(None, self._trials[trial], result)
        self._proposer.reported(trial, epoch, value)
        if decision == TrialScheduler.STOP or epoch >= EPOCHS:
            self._scheduler.on_trial_complete(None, self._trials[trial], result)
            self._proposer.ended(trial)
            return False
        return True


class Stock:
    """Ray's `OptunaSearch` and `AsyncHyperBandScheduler` as they ship."""

    def __init__(self, task: Task, seed: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        self._searcher = OptunaSearch(seed=seed)
        domains = {node.name: _ray_domain(node.domain) for node in task.space.parameters()}
        self._searcher.set_search_properties("value", "max", domains)
        self._scheduler = AsyncHyperBandScheduler(
            time_attr="training_iteration", metric="value", mode="max", max_t=EPOCHS, grace_period=1,
            reduction_factor=ETA,
        )  # fmt: skip
        self._trials: list[SimpleNamespace] = []

    def next(self) -> tuple[int, dict[str, Any], int]:
        """As in `Method`."""
        number = len(self._trials)
        flat = dict(self._searcher.suggest(str(number)))
        self._trials.append(SimpleNamespace(trial_id=str(number), config=flat))
        self._scheduler.on_trial_add(None, self._trials[number])
        return number, flat, 0

    def report(self, trial: int, epoch: int, value: float) -> bool:
        """As in `Method`."""
        result = {"training_iteration": epoch, "value": value}
        decision = self._scheduler.on_trial_result(None, self._trials[trial], result)
        self._searcher.on_trial_result(str(trial), result)
        if decision == TrialScheduler.STOP:
            self._searcher.on_trial_complete(str(trial), result)
            self._scheduler.on_trial_complete(None, self._trials[trial], result)
            return False
        return True


def _ray_domain(domain: Any) -> Any:
    from ray import tune

    if isinstance(domain, Choice):
        return tune.choice([option.value for option in domain.options])
    if domain.integer:
        return tune.randint(int(domain.low), int(domain.high) + 1)
    return tune.uniform(domain.low, domain.high)


METHODS: dict[str, Callable[[Task, int], Method]] = {
    "random, to the end": lambda task, seed: Ours(task, seed, sampler="random", scheduler="none"),
    "random + ASHA": lambda task, seed: Ours(task, seed, sampler="random", promote=False),
    "Ray OptunaSearch + ASHA": Stock,
    "ours": lambda task, seed: Ours(task, seed, sampler="auto"),
}


@dataclass(frozen=True)
class Trace:
    """The best value after each epoch spent, by whichever worker, and the clock then."""

    best: np.ndarray[Any, np.dtype[np.float64]]
    clock: np.ndarray[Any, np.dtype[np.float64]]


def simulate(
    task: Task,
    method: Method,
    *,
    budget: int,
    workers: int = 4,
    until: float | None = None,
    epoch_time: Callable[[dict[str, Any], int], float] = lambda flat, epoch: 1.0,
) -> Trace:
    """Runs a search for `budget` epochs in all, or until the best value is `until`."""
    waiting: list[tuple[float, int, int, int, dict[str, Any]]] = []
    best, clock = [], []
    order = 0

    def start(now: float) -> None:
        nonlocal order
        trial, flat, epoch = method.next()
        heapq.heappush(waiting, (now + epoch_time(flat, epoch + 1), order, trial, epoch + 1, flat))
        order += 1

    for _ in range(workers):
        start(0.0)
    while len(best) < budget and (until is None or not best or best[-1] < until):
        now, _, trial, epoch, flat = heapq.heappop(waiting)
        value = float(task.curve(flat)[epoch - 1])
        best.append(max(value, best[-1]) if best else value)
        clock.append(now)
        if method.report(trial, epoch, value):
            heapq.heappush(waiting, (now + epoch_time(flat, epoch + 1), order, trial, epoch + 1, flat))
            order += 1
        else:
            start(now)
    return Trace(np.array(best), np.array(clock))
