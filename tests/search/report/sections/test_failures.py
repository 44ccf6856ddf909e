from report_runs import frozen, row, run_with, subject

from search.report.jsonable import as_json
from search.report.sections.failures import Failures, failures, render


def test_failures_are_grouped_by_kind_with_the_first_line_of_the_first() -> None:
    rows = [
        row(0, None, "failed", error="ValueError: one\nmore"), row(1, 0.5),
        row(2, None, "failed", error="OSError: disk"), row(3, None, "failed", error="OSError: other"),
        row(4, None, "failed"),
    ]  # fmt: skip
    trials = frozen([("failed", {}, {"failure": "not a number"} if n == 4 else {}) for n in range(5)], {})
    assert as_json(failures(run_with(trials=rows, frozen=trials))) == [
        {"kind": "OSError", "count": 2, "trials": [2, 3], "first_error": "disk"},
        {"kind": "ValueError", "count": 1, "trials": [0], "first_error": "one"},
        {"kind": "not a number", "count": 1, "trials": [4], "first_error": ""},
    ]
    assert failures(run_with(trials=rows[1:2])) is None


def test_of_many_trials_the_first_numbers_are_told() -> None:
    page = render((Failures("OSError", 9, list(range(9)), ""),), subject())
    assert "0, 1, 2, 3, 4, 5, 6, 7, ..." in page
    assert "no message" in page
