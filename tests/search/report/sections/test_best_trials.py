from typing import Any

from report_runs import card, row, run_with, subject

from search.report.jsonable import as_json
from search.report.sections.best_trials import BestTrial, best_trials, render
from search.runs.sealed_training import SealedTraining


def test_best_trials_are_ranked_by_the_mode_and_failed_ones_come_last() -> None:
    rows = [
        row(0, 0.5),
        row(1, 0.9, "failed"),
        row(2, 0.3),
        row(3, None),
        row(4, 0.5, **{"param/a.b": 1, "param/c": None}),
    ]
    found = best_trials(run_with(trials=rows))
    assert found is not None
    assert [trial.number for trial in found] == [0, 4, 2, 1]
    assert found[1].settings == {"a.b": 1}
    by_loss = best_trials(run_with(trials=rows, config={"search": {"metric": "val/loss"}}), count=2)
    assert by_loss is not None
    assert [trial.number for trial in by_loss] == [2, 0]
    assert best_trials(run_with()) is None


def sealed_again(value: float, metric: str = "val/iou") -> dict[str, Any]:
    """Parts of a run that has sealed trial 1, trained again with seed 7: its second epoch of three."""
    epoch = {"val/iou": 0.1, "val/dice": 0.2, "val/threshold": 0.4}
    return {
        "card": {**card(1), "origin": {"trial": 1, "epoch": 2, "seed": 7, "rerun": 3}},
        "reports": {1: epoch, 2: {**epoch, metric: value}, 3: epoch},
    }


def test_the_training_that_is_sealed_has_a_row_of_its_own_in_its_place() -> None:
    rows = [row(0, 0.9), row(1, 0.8, **{"param/a.b": 5}), row(2, 0.7), row(3, 0.95, "failed")]
    found = best_trials(run_with(trials=rows, **sealed_again(0.75)))
    assert found is not None
    assert [(trial.number, trial.seed) for trial in found] == [(0, None), (1, None), (1, 7), (2, None), (3, None)]
    assert found[2] == BestTrial(1, "complete", 0.75, 2, 3, 0.75, 0.2, 0.4, {"a.b": 5}, seed=7)
    assert as_json(found[2])["seed"] == 7
    assert "seed" not in as_json(found[1])


def test_it_is_shown_even_where_it_is_not_among_the_best() -> None:
    rows = [row(0, 0.9), row(1, 0.8), row(2, 0.7)]
    found = best_trials(run_with(trials=rows, **sealed_again(0.1)), count=2)
    assert found is not None
    assert [(trial.number, trial.seed) for trial in found] == [(0, None), (1, None), (1, 7)]
    of_a_loss = {"search": {"metric": "val/loss"}}
    first = best_trials(run_with(trials=rows, config=of_a_loss, **sealed_again(0.1, "val/loss")))
    assert first is not None
    assert (first[0].number, first[0].seed) == (1, 7)


def test_the_sealed_training_is_marked_and_not_the_trial_that_it_repeats() -> None:
    run = run_with(trials=[row(0, 0.9), row(1, 0.8)], **sealed_again(0.75))
    found = best_trials(run)
    assert found is not None
    page = render(found, subject(sealed=run.sealed))
    assert page.count('class="winner"') == 1
    marked = page[page.index('class="winner"') :]
    assert "complete, trained again with seed 7" in marked
    assert "0.7500" in marked
    assert "0.8000" not in marked
    own = render(found[:2], subject(sealed=SealedTraining(2, 1)))
    assert own.index("0.9000") < own.index('class="winner"') < own.index("0.8000")
    assert "winner" not in render(found, subject())


def test_without_its_journal_nothing_is_said_of_it_that_is_of_another_training() -> None:
    run = run_with(trials=[row(0, 0.9), row(1, 0.8)], card=sealed_again(0.5)["card"])
    found = best_trials(run)
    assert found is not None
    assert [(trial.number, trial.seed) for trial in found] == [(0, None), (1, None)]
    assert "winner" not in render(found, subject(sealed=run.sealed))
