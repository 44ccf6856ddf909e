"""A Gaussian process over settings and epochs."""

from collections.abc import Iterator

from search.sampling.sampler import Question, Sampler, SamplerRule, Setting
from segcore.component import Component
from segcore.params import Params


class ProcessSampler:
    """The points with the highest expected improvement at the last epoch.

    One process for each weight of the metric: it keeps what it has learned of lengths and variances, which differ
    between them.
    """

    def __init__(self, setting: Setting) -> None:
        from search.sampling.gaussian import CurveProcess

        self._cube = setting.cube
        self._processes = {
            weight: CurveProcess(setting.cube, setting.rungs, setting.rungs[-1]) for weight in setting.weights
        }

    def propose(self, question: Question) -> Iterator[Params]:
        """See `Sampler.propose`."""
        process = self._processes[question.weight]
        return map(self._cube.point, process.propose(question.trials, question.rng, question.count))


def _build(setting: Setting) -> Sampler:
    return ProcessSampler(setting)


COMPONENT = Component(
    "gp",
    "a Gaussian process over settings and epochs",
    SamplerRule(
        does="a Gaussian process over settings and epochs: the point with the highest expected improvement at the "
        "last epoch",
        when="few settings, mostly numbers",
        build=_build,
    ),
    order=30,
)
