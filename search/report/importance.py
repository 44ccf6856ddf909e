"""Which parameters mattered, by PED-ANOVA, and the value of each trial against each of those that did."""

import logging
import warnings
from typing import TYPE_CHECKING, Any

from search.runs.sources import Sources

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MIN_TRIALS = 16
"""With fewer trials, the importances are those of the draws rather than of the parameters."""
NUM_SLICES = 4
_TOP_SHARE, _FEWEST_TOP = 0.1, 5


def importances(sources: Sources) -> dict[str, Any] | None:
    """Shares that add up to 1, most important first, and points for a plot of each of the first four.

    A trial counts with its best epoch, whether it ran to its end or was stopped: the method asks only how the
    parameters of the best trials are spread compared with those of all, and stopped trials are among the others.
    With fewer than `MIN_TRIALS` trials `shares` is empty, and the first four parameters of the space are plotted.

    References:
        Watanabe, Bansal and Hutter, PED-ANOVA, IJCAI 2023, arXiv:2304.10255.
    """
    states = {row["number"]: row["state"] for row in sources.trials}
    values = {
        row["number"]: float(row["value"])
        for row in sources.trials
        if row["value"] is not None and row["state"] != "failed"
    }
    known = [trial for trial in sources.frozen if trial.number in values and trial.params]
    names = list(dict.fromkeys(name for trial in known for name in trial.params))
    if not names:
        return None
    shares = _shares(known, values, sources.config.search.mode) if len(known) >= MIN_TRIALS else {}
    return {
        "num_trials": len(known),
        "min_trials": MIN_TRIALS,
        "shares": [{"name": name, "share": share} for name, share in shares.items()],
        "slices": [_slice(name, known, values, states) for name in list(shares or names)[:NUM_SLICES]],
    }


def _shares(trials: list["FrozenTrial"], values: dict[int, float], mode: str) -> dict[str, float]:
    import optuna

    finished = [
        optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=values[t.number])
        for t in trials
    ]
    top_share = min(0.5, max(_TOP_SHARE, _FEWEST_TOP / len(trials)))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        study.add_trials(finished)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top_share)
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _slice(name: str, trials: list["FrozenTrial"], values: dict[int, float], states: dict[int, str]) -> dict[str, Any]:
    having = [trial for trial in trials if name in trial.params]
    distribution = having[-1].distributions[name]
    choices = getattr(distribution, "choices", None)
    is_log = getattr(distribution, "log", False)
    return {
        "name": name,
        "choices": None if choices is None else [str(choice) for choice in choices],
        "axis": "category" if choices is not None else "log" if is_log else "linear",
        "points": [
            {
                "number": trial.number,
                "state": states[trial.number],
                "x": trial.params[name] if choices is None else str(trial.params[name]),
                "value": values[trial.number],
            }
            for trial in having
        ],
    }
