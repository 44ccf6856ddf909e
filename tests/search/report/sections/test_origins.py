import pytest
from report_runs import card, frozen, row, run_with, subject

from search.report.jsonable import as_json
from search.report.sections.origins import Origin, origins, render


def test_origins_count_all_their_trials_and_average_those_that_did_not_fail() -> None:
    rows = [row(0, 0.5), row(1, 0.2), row(2, 0.6), row(3, 0.9, "failed"), row(4, None, "failed")]
    names = ["config", "gp", "gp", "gp", "prior"]
    trials = frozen([("complete", {}, {"origin": name}) for name in names], {})
    assert as_json(origins(run_with(trials=rows, frozen=trials))) == [
        {"origin": "config", "trials": 1, "with_value": 1, "mean": 0.5, "best": 0.5, "found_winner": False},
        {"origin": "gp", "trials": 3, "with_value": 2, "mean": pytest.approx(0.4), "best": 0.6, "found_winner": True},
        {"origin": "prior", "trials": 1, "with_value": 0, "mean": None, "best": None, "found_winner": False},
    ]
    assert origins(run_with()) is None
    assert origins(run_with(trials=rows, frozen=frozen([("complete", {}, {})] * 5, {}))) is None


def test_a_trial_that_does_not_say_who_proposed_it_is_counted_apart_and_a_waiting_one_not_at_all() -> None:
    trials = frozen([("complete", {}, {"origin": "gp"}), ("complete", {}, {}), ("complete", {}, {"origin": "gp"})], {})
    found = origins(run_with(trials=[row(0, 0.5), row(1, 0.6)], frozen=trials))
    assert found is not None
    assert [(entry.origin, entry.trials) for entry in found] == [("gp", 1), ("not recorded", 1)]


def test_the_sealed_trial_is_the_winner_even_where_another_one_is_better() -> None:
    trials = frozen([("complete", {}, {"origin": "config"}), ("complete", {}, {"origin": "gp"})], {})
    found = origins(run_with(trials=[row(0, 0.5), row(1, 0.9)], frozen=trials, card=card(0)))
    assert found is not None
    assert [entry.found_winner for entry in found] == [True, False]


def test_each_that_proposed_is_explained() -> None:
    page = render((Origin("gp", 3, 2, 0.4, 0.6, True), Origin("config", 1, 0, None, None, False)), subject())
    assert "config: the config&#x27;s own values." in page.replace("'", "&#x27;")
    assert "gp: a Gaussian process" in page
    assert "tpe" not in page
    assert page.count("found the winner") == 1
