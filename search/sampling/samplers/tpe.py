"""TPE as Optuna has it."""

from search.sampling.sampler import Sampler, SamplerRule, Setting
from segcore.component import Component


def _build(setting: Setting) -> Sampler:
    from search.sampling.parzen import ParzenSampler, score_by_progress

    return ParzenSampler(setting.space, score_by_progress, setting.rungs)


COMPONENT = Component(
    "tpe",
    "plain TPE",
    SamplerRule(
        does="TPE as Optuna has it: later epochs before earlier ones, then the value",
        when="for comparison",
        build=_build,
    ),
    order=40,
)
