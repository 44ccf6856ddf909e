"""What the threshold would have cost, had it been searched instead of taken from the exact curve of each epoch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from search.report.figures import ACCENT, INK, STATE_COLORS, Figure, framed
from search.report.jsonable import as_json, known
from search.report.markup import plot, table
from search.report.section import Section, Subject
from search.report.threshold_cost import Cost, SearchedThresholds, cost_of_search, read_iou_curve, searched_thresholds
from search.runs.reading import Run
from search.show.quoting import number_text, training_text


@dataclass(frozen=True)
class CurveCost:
    """The winner's curve, and what a random threshold would be worth on it.

    Attributes:
        cost: What the curve says.
        trial: Whose curve it is; None for a single training run.
        seed: Where the trial was trained again, and that training is sealed.
    """

    cost: Cost
    trial: int | None
    seed: int | None = None

    def as_json(self) -> Mapping[str, object]:
        """The cost's own keys beside whose curve it is."""
        whose = {"kind": "curve", "trial": self.trial, **known(seed=self.seed)}
        return {**whose, **as_json(self.cost)}


def threshold_cost(run: Run) -> CurveCost | SearchedThresholds | None:
    """The curve of what is sealed and what a random threshold would be worth; or what searched thresholds lost.

    None where no curve can be read.
    """
    searched = searched_thresholds(run.trials, run.winner, run.sealed)
    if searched is not None:
        return searched
    curve = next((found for folder in run.checkpoints if (found := read_iou_curve(folder)) is not None), None)
    if curve is None:
        return None
    return CurveCost(
        cost_of_search(curve, len(run.trials) or None), run.winner, run.sealed.seed if run.sealed else None
    )


def render(record: CurveCost | SearchedThresholds, subject: Subject) -> str:
    """The section, whether thresholds were taken from the curve or searched."""
    if isinstance(record, SearchedThresholds):
        return _searched(record)
    cost = record.cost
    low, high = cost.range
    of = "the run's best epoch"
    if record.trial is not None:
        of = f"{training_text(record.trial, record.seed)}, its best epoch"
    rows = [
        ("at its best threshold", cost.best_threshold, cost.iou_at_best),
        ("at 0.5", 0.5, cost.iou_at_half),
        (f"at a random one in [{low}, {high}], on average", None, cost.iou_at_random),
    ]
    body = [
        ("", [(what, "what"), (number_text(at), "n"), (f"{iou:.4f}", "n"), (f"{iou - cost.iou_at_best:+.4f}", "n")])
        for what, at, iou in rows
    ]
    heads = [("", ""), ("threshold", "n"), ("IoU on val", "n"), ("against the best", "n")]
    return "".join(
        [
            "<p>segsearch reads the threshold off the exact curve of each validation pass, at no cost in trials. "
            f"Below is the curve of {of}.</p>",
            plot(threshold_curve(cost)),
            table(heads, body),
            "<h3>Had the threshold been one more searched parameter</h3>",
            *_draws(cost),
        ]
    )


def _draws(cost: Cost) -> Iterator[str]:
    low, high = cost.range
    count = cost.num_trials
    heads = [("IoU within", "n"), (f"share of [{low}, {high}]", "n"), ("trials for these settings", "n")]
    if count is not None:
        heads.append((f"for the {count} settings of this run", "n"))
    body = []
    for row in cost.tolerances:
        values = [f"{row.within:g}", f"{row.share:.1%}", _count_text(row.draws)]
        if count is not None:
            values.append(_count_text(row.draws_in_all))
        body.append(("", [(value, "n") for value in values]))
    yield table(heads, body)
    whole = f", and that each of the run's {count} settings needs as many as the winner's" if count is not None else ""
    yield (
        f'<p class="soft">This assumes that each trial draws its threshold evenly from [{low}, {high}], so that 1 / '
        f"share draws are expected until one is as good as said{whole}; a sampler that learns would need fewer.</p>"
    )


def _searched(cost: SearchedThresholds) -> str:
    by_winner = f"; the winner's lost {cost.by_winner:.4f}" if cost.by_winner is not None else ""
    intro = (
        f"<p>{cost.num_trials} trials ran with a threshold that was searched. Against the best one of its own "
        f"curve, each lost {cost.mean:.4f} IoU on average (median {cost.median:.4f}, at most {cost.most:.4f})"
        f"{by_winner}. With <code>threshold: auto</code>, and no threshold in the space, this is won at no cost, and "
        "trials are compared by their models alone.</p>"
    )
    return f"{intro}{plot(threshold_losses(cost))}"


def _count_text(value: float | None) -> str:
    """A number of trials; None: none would do."""
    if value is None:
        return "none is as good"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def threshold_curve(cost: Cost) -> Figure:
    """IoU against the threshold, with the best, 0.5, and what a random one is worth."""
    low, high = cost.range
    line = {
        "type": "scatter", "mode": "lines", "x": cost.curve.threshold, "y": cost.curve.iou,
        "line": {"color": ACCENT, "width": 2.5}, "name": "IoU on val",
        "hovertemplate": "threshold %{x:.3f}: IoU %{y:.4f}<extra></extra>",
    }  # fmt: skip
    random = {
        "type": "scatter", "mode": "lines", "x": [low, high], "y": [cost.iou_at_random] * 2,
        "line": {"color": STATE_COLORS["running"], "width": 2, "dash": "dash"}, "name": "a random one, on average",
        "hovertemplate": "IoU %{y:.4f}<extra>on average</extra>",
    }  # fmt: skip
    marks = [
        (f"best, {cost.best_threshold:.3f}", cost.best_threshold, cost.iou_at_best, STATE_COLORS["complete"]),
        ("0.5", 0.5, cost.iou_at_half, INK),
    ]
    points = [
        {
            "type": "scatter", "mode": "markers", "x": [x], "y": [y], "name": name,
            "marker": {"size": 10, "color": color}, "hovertemplate": f"{name}: IoU %{{y:.4f}}<extra></extra>",
        }
        for name, x, y, color in marks
    ]  # fmt: skip
    return framed([line, random, *points], "threshold", "IoU", height=320)


def threshold_losses(cost: SearchedThresholds) -> Figure:
    """What each searched threshold lost, against the threshold."""
    losses = cost.losses
    dots = {
        "type": "scatter", "mode": "markers", "x": [loss.threshold for loss in losses],
        "y": [loss.lost for loss in losses], "marker": {"size": 8, "color": ACCENT}, "showlegend": False,
        "text": [f"trial {loss.number}, best at {loss.best_threshold:.3f}" for loss in losses],
        "hovertemplate": "%{text}<br>at %{x:.3f} it lost %{y:.4f}<extra></extra>",
    }  # fmt: skip
    return framed([dots], "searched threshold", "IoU lost", height=300)


def _title(record: CurveCost | SearchedThresholds, subject: Subject) -> str:
    what = "searching the threshold cost" if isinstance(record, SearchedThresholds) else "the threshold would have cost"
    return f"What {what}"


SECTION: Section[CurveCost | SearchedThresholds] = Section(
    "threshold", 90, "The threshold", threshold_cost, render, _title
)
