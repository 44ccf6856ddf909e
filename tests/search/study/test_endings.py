"""How what still runs is ended."""

from study_searchers import OBJECTIVE, journal_of, new_searcher, reopen, result, stored

from search.study.endings import end_running
from search.tune.standing import ended_text


def test_a_time_budget_ends_what_is_running(url: str) -> None:
    study = reopen(url)
    searcher = new_searcher(study)
    for trial_id in ("a", "b", "c"):
        searcher.suggest(trial_id)
    searcher.on_trial_complete("a", result(1, 0.5, finished=True))
    searcher.on_trial_result("b", result(1, 0.4))
    searcher.flush()
    assert end_running(study, journal_of(study), OBJECTIVE) == [1, 2]
    assert [trial.state.name for trial in stored(url)] == ["COMPLETE", "PRUNED", "FAIL"]
    assert end_running(study, journal_of(study), OBJECTIVE) == []


def test_what_a_rule_ended_is_told_apart() -> None:
    assert ended_text([4, 5, 7, 8, 9], {1, 7, 8, 9}) == "trials that end here: 2 running, 3 waiting at a rung"
    assert ended_text([4], ()) == "trials that end here: 1 running"
    assert ended_text([7], {7}) == "trials that end here: 1 waiting at a rung"
    assert ended_text([], {7}) == "trials that end here: none"
