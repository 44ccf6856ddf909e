"""When Ray stops a trial early: one registry of schedulers, each of which can be resumed from a trial history."""

from collections.abc import Callable, Iterable, Mapping

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config.tree import SchedulerConfig
from search.schedulers.asha import ResumableAsha, rungs
from search.schedulers.forks import Population, Snapshots
from search.schedulers.median import MedianRule
from search.schedulers.population import PopulationScheduler
from search.schedulers.promoting import PromotingAsha
from search.schedulers.rungs import Promotions
from search.schedulers.setting import History, Setting
from segcore.objective import Objective

__all__ = ["SCHEDULERS", "History", "Setting", "build_promotions", "build_scheduler", "decision_epochs"]


def _asha(options: SchedulerConfig, setting: Setting) -> TrialScheduler:
    """Lets the best 1/reduction_factor pass each rung: grace_period, times reduction_factor, and so on.

    With `promotions` the others wait there and may go on later; without, they are stopped.

    References:
        Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """
    if setting.promotions is not None:
        return PromotingAsha(setting, setting.promotions)
    return ResumableAsha(setting, options.grace_period, options.reduction_factor)


def _hyperband(options: SchedulerConfig, setting: Setting) -> TrialScheduler:
    """ASHA in brackets, each with a first rung reduction_factor times later than that of the bracket before.

    Trials that learn slowly at first get a chance in the later brackets. A trial's bracket follows from its number and
    the seed. This is the asynchronous form: in Ray's synchronous `HyperBandScheduler` a bracket waits, paused, until it
    is full, and with a searcher that hands out no more than `max_concurrent` trials it waits for ever.

    References:
        Li et al., Hyperband, JMLR 2018; Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """
    return ResumableAsha(setting, options.grace_period, options.reduction_factor, options.brackets)


def _median(options: SchedulerConfig, setting: Setting) -> TrialScheduler:
    return MedianRule(setting, options.grace_period, options.min_samples)


def _pbt(options: SchedulerConfig, setting: Setting) -> TrialScheduler:
    return PopulationScheduler(setting, Population.of(options, setting.max_epochs))


def _none(options: SchedulerConfig, setting: Setting) -> TrialScheduler:
    return FIFOScheduler()


SCHEDULERS: dict[str, Callable[[SchedulerConfig, Setting], TrialScheduler]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "pbt": _pbt,
    "none": _none,
}


def build_scheduler(
    options: SchedulerConfig,
    objective: Objective,
    *,
    max_epochs: int,
    seed: int = 0,
    history: History,
    unfinished: Iterable[int] = (),
    snapshots: Snapshots | None = None,
    promotions: Promotions | None = None,
) -> TrialScheduler:
    """The scheduler of that name, as if it had seen `history` itself.

    Args:
        options: Its name and options.
        objective: What trials are compared by.
        max_epochs: Epochs of a trial that nobody stops.
        seed: Decides what a scheduler draws.
        history: What trials reported in earlier sessions; they are not judged again there.
        unfinished: Those of them that go on.
        snapshots: Where pbt keeps what may be copied.
        promotions: Who waits, from `build_promotions`; without it, asha stops whom it does not let pass.
    """
    setting = Setting(objective, max_epochs, seed, history, frozenset(unfinished), snapshots, promotions)
    return SCHEDULERS[options.name](options, setting)


def build_promotions(
    options: SchedulerConfig,
    objective: Objective,
    *,
    max_epochs: int,
    history: History,
    unfinished: Iterable[int] = (),
    costs: Mapping[int, float] | None = None,
) -> Promotions | None:
    """Who waits at which rung, where the scheduler pauses trials rather than stopping them; else None.

    `costs` are those of earlier trials.
    """
    if options.name != "asha" or not options.promote:
        return None
    rungs_below = decision_epochs(options, max_epochs)
    promotions = Promotions(rungs_below, options.reduction_factor, objective)
    promotions.replay(history, unfinished, costs)
    return promotions


def decision_epochs(options: SchedulerConfig, max_epochs: int) -> tuple[int, ...]:
    """Epochs below the last at which trials are judged; a checkpoint there is worth its time.

    Empty for a scheduler that judges at every epoch, or at none.
    """
    if options.name in ("asha", "hyperband"):
        return rungs(options.grace_period, options.reduction_factor, max_epochs)
    if options.name == "pbt":
        return Population.of(options, max_epochs).points
    return ()
