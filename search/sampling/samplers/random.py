"""Independent points."""

from collections.abc import Iterator

from search.sampling.sampler import Question, Sampler, SamplerRule, Setting
from segcore.component import Component
from segcore.params import Params


class RandomSampler:
    """Draws each setting on its own, evenly on its range's scale."""

    def __init__(self, setting: Setting) -> None:
        self._space = setting.space

    def propose(self, question: Question) -> Iterator[Params]:
        """See `Sampler.propose`."""
        while True:
            yield self._space.sample_uniform(question.rng)


def _build(setting: Setting) -> Sampler:
    return RandomSampler(setting)


COMPONENT = Component(
    "random",
    "independent points",
    SamplerRule(does="independent points", when="a picture of the whole space", build=_build, learns=False),
    order=60,
)
