"""TPE that compares trials at a rung that both reached."""

from search.sampling.sampler import Sampler, SamplerRule, Setting
from segcore.component import Component


def _build(setting: Setting) -> Sampler:
    from search.sampling.parzen import ParzenSampler, score_by_rung

    return ParzenSampler(setting.space, score_by_rung, setting.rungs)


COMPONENT = Component(
    "rung_tpe",
    "TPE that compares trials at a rung that both reached",
    SamplerRule(
        does="TPE (on Optuna's own estimators) that compares trials at a rung that both reached; at all rungs where "
        "the low ones have proved to rank like the high ones",
        when="many choices and branches",
        build=_build,
    ),
    order=20,
)
