"""What there is to say about a config's space before anything runs: its tree, its size, and what points look like."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from search.sampling.small_spaces import too_few_points
from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Option,
    Prior,
    Range,
    plain,
    same_value,
)
from search.space.effects import idle_nodes
from search.space.forbid import NUM_POINTS, telling_points, uniform_points
from search.space.search import Search
from search.space.tree import Space, all_nodes
from segcore.params import Params, ParamValue

_TRIES_PER_SAMPLE = 500


@dataclass(frozen=True)
class Size:
    """How large a space is: combinations of its discrete values, and the continuous dimensions beside them.

    How many continuous dimensions a trial has depends on its branches: from `min_continuous` to `max_continuous`.
    """

    combinations: int
    min_continuous: int
    max_continuous: int


@dataclass(frozen=True)
class PriorShown:
    """What is believed of a parameter; `text` says it in words."""

    center: ParamValue
    width: float
    text: str


@dataclass(frozen=True)
class ParameterShown:
    """A node of the space; `options` are those of a choice, None of anything else."""

    key: str
    name: str
    values: str
    prior: PriorShown | None
    options: "list[OptionShown] | None" = None


@dataclass(frozen=True)
class OptionShown:
    """An option of a choice, and the parameters of its branch."""

    value: ParamValue
    size: Size
    parameters: list[ParameterShown]


@dataclass(frozen=True)
class RuleShown:
    """A forbid expression, and the share of random points, from 0 to 1, that it rules out."""

    expression: str
    share: float


@dataclass(frozen=True)
class Survey:
    """Everything that `segsearch space` prints.

    Attributes:
        name: The config's.
        keys: Dotted keys that some trial may set, in the file's order.
        parameters: The tree.
        size: Of the whole space.
        forbid: The expressions.
        forbidden_share: Of random points, from 0 to 1, by all expressions together.
        first: The config's own values as a point; None where they are not a point of the space.
        why_no_first: Why they are not a point of the space.
        enqueued: The points of `search.enqueue`.
        samples: Random points.
        warnings: Warnings for the user.
    """

    name: str
    keys: list[str]
    parameters: list[ParameterShown]
    size: Size
    forbid: list[RuleShown]
    forbidden_share: float
    first: Params | None
    why_no_first: str | None
    enqueued: list[Params]
    samples: list[Params]
    warnings: list[str]

    def tree(self) -> dict[str, object]:
        """The JSON object of `segsearch space --json`; only a choice has `options`."""
        return asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if (k, v) != ("options", None)})


def size_of(nodes: Sequence[Node]) -> Size:
    """The size of a space or of a branch: parameters multiply, the branches of a choice add up."""
    size = Size(1, 0, 0)
    for node in nodes:
        part = _size(node)
        size = Size(
            size.combinations * part.combinations,
            size.min_continuous + part.min_continuous,
            size.max_continuous + part.max_continuous,
        )
    return size


def _size(node: Node) -> Size:
    domain = node.domain
    if isinstance(domain, Choice):
        branches = [size_of(option.nodes) for option in domain.options]
        return Size(
            sum(branch.combinations for branch in branches),
            min(branch.min_continuous for branch in branches),
            max(branch.max_continuous for branch in branches),
        )
    if isinstance(domain, Range) and domain.size is None:
        return Size(1, 1, 1)
    return Size((domain.size or 1) if isinstance(domain, Range) else 1, 0, 0)


def survey(search: Search, num_samples: int, seed: int) -> Survey:
    """Collects everything that is shown of a config's space.

    Args:
        search: Of a checked config.
        num_samples: How many random points to show: drawn from the priors where there are any, forbidden ones left out.
        seed: Of those points.
    """
    config, base, space = search.config, search.base, search.space
    points = uniform_points(space, NUM_POINTS)
    samples = _allowed(space, num_samples, seed)
    try:
        first, why = space.own_point(base), None
    except ValueError as error:
        first, why = None, str(error)
    warnings = [f"{idle.node.key} {idle.message}" for idle in idle_nodes(space.nodes, base)]
    warnings += _rule_warnings(space)
    if space and len(samples) < num_samples:
        found = f"only {len(samples)} of {_TRIES_PER_SAMPLE * num_samples} random points are allowed by forbid"
        warnings.append(f"{found}; shrink the ranges instead, so that the search need not throw away its proposals")
    size = size_of(space.nodes)
    if (few := too_few_points(search)) is not None:
        warnings.append(few)
    return Survey(
        name=config.name,
        keys=list(space.keys()),
        parameters=[_parameter(node) for node in space.nodes],
        size=size,
        forbid=[RuleShown(rule.text, float(np.mean([rule.holds(point) for point in points]))) for rule in space.rules],
        forbidden_share=float(np.mean([space.forbidden(point) is not None for point in points])),
        first=first,
        why_no_first=why,
        enqueued=search.enqueued_points(),
        samples=samples,
        warnings=warnings,
    )


def _allowed(space: Space, count: int, seed: int) -> list[Params]:
    """Random points that no expression forbids; fewer than asked for where they are too rare."""
    rng = np.random.default_rng(seed)
    found: list[Params] = []
    for _ in range(_TRIES_PER_SAMPLE * count if space else 0):
        point = space.sample_prior(rng)
        if space.forbidden(point) is None:
            found.append(point)
        if len(found) == count:
            break
    return found


def _rule_warnings(space: Space) -> list[str]:
    if not space.rules:
        return []
    warnings = []
    every = telling_points(space)
    for rule in space.rules:
        if not any(rule.holds(point) for point in every):
            warnings.append(
                f"forbid `{rule.text}` is true of none of {NUM_POINTS:,} random points; is it spelled right?"
            )
    allowed = [point for point in every if space.forbidden(point) is None]
    for node, _ in all_nodes(space.nodes):
        for option in node.domain.options if isinstance(node.domain, Choice) else ():
            tried, left = (
                any(node.key in point and same_value(point[node.key], option.value) for point in among)
                for among in (every, allowed)
            )
            if tried and not left:
                message = f"{node.key} = {plain(option.value)} is ruled out by forbid; take it out of the choice"
                warnings.append(message)
    return list(dict.fromkeys(warnings))


def _parameter(node: Node) -> ParameterShown:
    domain = node.domain
    options = domain.options if isinstance(domain, Choice) else None
    return ParameterShown(
        key=node.key,
        name=node.name,
        values=domain.describe(),
        prior=_prior(domain, node.prior) if node.prior else None,
        options=options if options is None else [_option(option) for option in options],
    )


def _option(option: Option) -> OptionShown:
    return OptionShown(option.value, size_of(option.nodes), [_parameter(below) for below in option.nodes])


def _prior(domain: Range | Choice | Fixed, prior: Prior) -> PriorShown:
    if isinstance(domain, Choice):
        text = f"{plain(prior.center)} {1 - prior.width:.0%}, the others {prior.width:.0%}"
    elif isinstance(domain, Range) and domain.log:
        text = f"around {prior.center:g}, width {prior.width:.3g} decades"
    else:
        text = f"around {prior.center:g}, width {prior.width:.3g}"
    return PriorShown(prior.center, prior.width, text)
