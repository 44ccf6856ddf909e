"""How a search went: its trials one after the other, what each epoch brought, and every learning curve."""

import math

from search.report.course import Curve, History, Point, Step, search_history
from search.report.figures import (
    ACCENT,
    RULE,
    SOFT,
    STATE_COLORS,
    Dot,
    Figure,
    dots,
    framed,
    step_line,
    trial_label,
)
from search.report.markup import plot
from search.report.section import Section, Subject
from search.show.quoting import training_text

_FAINT = "rgba(154,165,177,0.45)"
_MOST_TICKS = 12


def render(history: History, subject: Subject) -> str:
    """The figures of a search; of a training run its curve alone."""
    parts = []
    if history.trials:
        parts += [
            "<p>A trial's value is that of its best epoch, whether it ran to its end or was stopped before.</p>",
            '<div class="two"><div><h3>Trial by trial</h3>', plot(by_number(history)),
            "</div><div><h3>By what it cost</h3>", plot(by_epochs(history)), "</div></div>",
        ]  # fmt: skip
    parts.append("<h3>Learning curves</h3>")
    if history.trials:
        left = history.num_curves_left_out
        num_trials = len({curve.number for curve in history.curves})
        note = f" The {num_trials} best trials; {left} more are left out." if left else ""
        legend = "Green: ran to the end. Grey: stopped at a rung or by a rule. Red: failed."
        parts.append(f'<p class="soft">{_winner_text(history)}{legend}{note} Point at a line for its settings.</p>')
    parts.append(plot(learning_curves(history)))
    return "".join(parts)


def _winner_text(history: History) -> str:
    winner = next((curve for curve in history.curves if curve.is_winner), None)
    if winner is None:
        return ""
    what = "the winner" if winner.seed is None else "which is sealed"
    return f"Blue: {training_text(winner.number, winner.seed)}, {what}. "


def by_number(history: History) -> Figure:
    """Each trial's value against its number, with the best so far."""
    best = [trial for trial in history.trials if trial.best_so_far is not None]
    line = step_line([t.number for t in best], [t.best_so_far for t in best if t.best_so_far is not None])
    points = [Dot(trial.number, trial.value, trial.state, _label(trial)) for trial in history.trials]
    return framed([line, *dots(points)], "trial", history.metric, height=330)


def by_epochs(history: History) -> Figure:
    """Each trial's value against the epochs that all trials had been trained until then, with the best so far."""
    steps = [*history.steps]
    if steps:
        steps.append(Step(history.epochs, steps[-1].best))
    line = step_line([step.epochs for step in steps], [step.best for step in steps])
    points = [
        Dot(trial.epochs_spent, trial.value, trial.state, _label(trial))
        for trial in history.trials
        if trial.epochs_spent is not None
    ]
    return framed([line, *dots(points)], "epochs of all trials together", history.metric, height=330)


def learning_curves(history: History) -> Figure:
    """One line per trial, the winner's in front; the epochs at which trials are judged are dotted."""
    traces = []
    for curve in sorted(history.curves, key=lambda curve: curve.is_winner):
        color = ACCENT if curve.is_winner else STATE_COLORS.get(curve.state, _FAINT)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": curve.epochs,
                "y": curve.values,
                "line": {"color": color, "width": 3 if curve.is_winner else 1.5},
                "marker": {"size": 6 if curve.is_winner else 3.5, "color": color},
                "opacity": 1.0 if curve.is_winner else 0.8,
                "hovertemplate": f"{_label(curve)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
                "showlegend": False,
            }
        )
    figure = framed(traces, "epoch", history.metric, height=400)
    figure["layout"]["shapes"] = [
        {
            "type": "line", "x0": rung, "x1": rung, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": RULE, "width": 1, "dash": "dot"},
        }
        for rung in history.rungs
    ]  # fmt: skip
    figure["layout"]["annotations"] = [
        {
            "x": rung, "y": 1, "yref": "paper", "yanchor": "bottom", "text": f"rung {rung}", "showarrow": False,
            "font": {"size": 11, "color": SOFT},
        }
        for rung in history.rungs
    ]  # fmt: skip
    last = max((epoch for curve in history.curves for epoch in curve.epochs), default=1)
    figure["layout"]["xaxis"].update(tick0=0, dtick=math.ceil(last / _MOST_TICKS))
    figure["layout"]["hovermode"] = "closest"
    return figure


def _label(of: Point | Curve) -> str:
    seed = of.seed if isinstance(of, Curve) else None
    return trial_label(training_text(of.number, seed), of.state, of.settings)


SECTION = Section("history", 20, "How it went", search_history, render, is_long=True)
