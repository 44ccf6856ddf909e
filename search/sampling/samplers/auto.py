"""A mixture of two samplers, so that one makes up for the other's weaknesses."""

from search.sampling.sampler import SamplerRule
from segcore.component import Component

COMPONENT = Component(
    "auto",
    "gp and rung_tpe in turn",
    SamplerRule(
        does="`gp` and `rung_tpe`, drawn anew for each trial",
        when="the default: what one of them gets wrong, the other does not",
        shares={"gp": 0.5, "rung_tpe": 0.5},
    ),
    order=10,
)
