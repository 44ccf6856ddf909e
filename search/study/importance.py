"""Which parameters of a search mattered, by PED-ANOVA; for the report and for the ledger.

References:
    Watanabe, Bansal and Hutter, PED-ANOVA, IJCAI 2023, arXiv:2304.10255.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.runs.rerun_records import ImportanceShare
from search.runs.trials import Trials
from segcore.objective import Mode

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MIN_TRIALS = 16
"""With fewer trials, the importances reflect chance rather than the parameters."""
_TOP_SHARE, _FEWEST_TOP = 0.1, 5


@dataclass(frozen=True)
class Importances:
    """How much each parameter mattered.

    Attributes:
        values: The value of each trial that counts, by its number: of those that did not fail and have parameters.
        shares: They add up to 1, the most important first; empty with fewer than `MIN_TRIALS` trials.
    """

    values: Mapping[int, float]
    shares: list[ImportanceShare]

    @property
    def num_trials(self) -> int:
        """How many trials count."""
        return len(self.values)


def importances(frozen: Sequence["FrozenTrial"], trials: Trials) -> Importances:
    """How much each parameter of a search mattered.

    A trial counts with its best epoch, whether it ran to its end or was stopped: the method asks only how the
    parameters of the best trials are spread compared with those of all, and stopped trials are among the others.

    Args:
        frozen: The study's trials, which know each parameter's range.
        trials: The same as rows, which know their values.
    """
    sound = {row.number: float(row.value) for row in trials if row.is_sound and row.value is not None}
    known = [trial for trial in frozen if trial.number in sound and trial.params]
    values = {trial.number: sound[trial.number] for trial in known}
    shares = _shares(known, values, trials.objective.mode) if len(known) >= MIN_TRIALS else {}
    return Importances(values, [ImportanceShare(name=name, share=share) for name, share in shares.items()])


def _shares(trials: Sequence["FrozenTrial"], values: Mapping[int, float], mode: Mode) -> dict[str, float]:
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
