"""A Sobol sequence."""

from collections.abc import Iterable

from search.sampling.sampler import Question, Sampler, SamplerRule, Setting
from segcore.component import Component
from segcore.params import Params


class SpreadSampler:
    """Proposes the next point of an even spread, and no alternative to it."""

    def __init__(self, setting: Setting) -> None:
        from search.sampling.spread import Spread

        self._cube = setting.cube
        self._spread = Spread(setting.cube, setting.seed)

    def propose(self, question: Question) -> Iterable[Params]:
        """See `Sampler.propose`."""
        return [self._cube.point(self._spread.position(question.number))]


def _build(setting: Setting) -> Sampler:
    return SpreadSampler(setting)


COMPONENT = Component(
    "qmc",
    "a Sobol sequence",
    SamplerRule(
        does="a scrambled Sobol sequence", when="an even picture of the whole space", build=_build, learns=False
    ),
    order=50,
)
