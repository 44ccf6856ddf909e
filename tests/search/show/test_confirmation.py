import io
from typing import Any

import pytest
import rerun_records
from rerun_records import candidate
from rich.console import Console

from search.runs.rerun_records import Confirmation
from search.show.confirmation import (
    confirmation_lines,
    confirmation_table,
    render_confirmation,
)


def tie() -> Confirmation:
    return Confirmation.model_validate(rerun_records.tie())


def by_loss() -> Confirmation:
    return Confirmation.model_validate(rerun_records.by_loss())


def printed(record: Confirmation, width: int = 120, **options: Any) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in render_confirmation(record, **options):
        console.print(part, highlight=False)
    return console.export_text()


def column(record: Confirmation, head: str) -> list[str]:
    heads, rows = confirmation_table(record)
    return [row[heads.index(head)] for row in rows]


def test_each_candidate_has_a_row_with_what_the_search_saw_and_what_it_is() -> None:
    heads, rows = confirmation_table(tie())
    assert heads == [
        "trial", "mean", "95% interval", "sd of\nseeds", "search\nsaw", "against\ntrial 9", "its 95%\nrange", "",
        "M\nparams", "ms",
    ]  # fmt: skip
    assert rows[0] == ["9", "0.8612", "0.8312 - 0.8912", "0.0040", "0.8701", "-", "-", "tie", "4.63", "-"]
    assert rows[1] == [
        "0", "0.8592", "0.8292 - 0.8892", "0.0040", "0.8633", "-0.0020", "-0.0120 to +0.0080", "tie, winner", "4.63",
        "3.25",
    ]  # fmt: skip
    assert rows[2][5:8] == ["-0.0312", "-0.0412 to -0.0212", ""]


def test_a_candidate_whose_trainings_all_failed_says_so_and_hides_nothing_of_the_others() -> None:
    _, rows = confirmation_table(tie())
    assert rows[3][:8] == ["7", "-", "-", "-", "0.8555", "-", "-", "failed"]
    lines = list(confirmation_lines(tie()))
    assert lines[4:] == [
        "trial 4 failed with seed 2: out of memory [GPU 0]",
        "trial 7 failed with seeds 1, 2, 3: loss is nan",
    ]


def test_the_reason_comes_with_how_much_the_search_flattered_its_first_and_the_winner() -> None:
    assert list(confirmation_lines(tie()))[:4] == [
        "trials 9 and 0 are a tie; 0 is smaller (4,631,234 parameters, 9 has 4,631,243)",
        "the search saw 0.8701 of trial 9; over 3 fresh seeds it is 0.8612, so the search flattered it by 0.0089",
        "the search saw 0.8633 of trial 0; over 3 fresh seeds it is 0.8592, so the search flattered it by 0.0041",
        "the same settings with another seed differ by 0.0041 (standard deviation)",
    ]


def test_of_a_loss_a_smaller_value_flatters() -> None:
    line = list(confirmation_lines(by_loss()))[1]
    assert line.endswith("over 1 fresh seed it is 0.2500, so the search flattered it by 0.0100")
    worse = rerun_records.by_loss()
    worse["candidates"][0]["searched"] = 0.26
    assert list(confirmation_lines(Confirmation.model_validate(worse)))[1].endswith("so the search did not flatter it")
    assert column(by_loss(), "sd of\nseeds") == ["-", "-"]
    assert column(by_loss(), "95% interval") == ["-", "-"]
    assert column(by_loss(), "M\nparams") == ["-", "4.63"]
    assert "the best trials again over 1 fresh seed: val/loss, smaller is better" in printed(by_loss())


def test_without_a_tie_only_the_winner_is_marked() -> None:
    assert not by_loss().is_tie
    assert tie().is_tie
    assert column(by_loss(), "") == ["winner", ""]
    assert "tie" not in printed(by_loss())


def test_a_single_candidate_is_compared_with_none() -> None:
    alone = rerun_records.confirmation([candidate(3, 0.8, 0.82)], reason="trial 3 is the only one")
    record = Confirmation.model_validate(alone)
    heads, rows = confirmation_table(record)
    assert heads == ["trial", "mean", "95% interval", "sd of\nseeds", "search\nsaw", "", "M\nparams"]
    assert len(rows) == 1
    assert "trial 3 is the only one\nthe search saw 0.8200" in printed(record)


def test_what_models_cost_can_be_left_out() -> None:
    assert "params" in printed(tie())
    text = printed(tie(), parameters=False)
    assert "params" not in text
    assert "tie, winner" in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_nothing_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    text = printed(tie(), width)
    assert "…" not in text
    for number in ("0.8612", "0.8312", "0.8912", "-0.0312", "-0.0412", "-0.0212", "0.8701", "4.63", "3.25", "failed"):
        assert number in text
    assert "out of memory [GPU 0]" in text
    assert max(map(len, text.splitlines())) <= width
