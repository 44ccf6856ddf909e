from typing import Any

import plotly.graph_objects as go
import pytest
from report_runs import subject
from rerun_records import by_loss, candidate, confirmation, tie

from search.report.sections.confirmation import confirmation_plot, render
from search.runs.rerun_records import Confirmation


def page_of(record: dict[str, Any]) -> str:
    return render(Confirmation.model_validate(record), subject())


def test_the_figure_has_a_row_a_candidate_with_its_seeds_its_mean_and_what_the_search_saw() -> None:
    figure = confirmation_plot(Confirmation.model_validate(tie()))
    go.Figure(figure)  # raises on a property that plotly does not have
    means, seeds, searched = figure["data"]
    assert means["x"] == [0.8612, 0.8592, 0.83]
    assert means["error_x"]["array"] == pytest.approx([0.03] * 3)
    assert means["error_x"]["arrayminus"] == pytest.approx([0.03] * 3)
    assert len(seeds["x"]) == 3 + 3 + 2
    assert seeds["text"][-1] == "trial 4, seed 3"
    assert searched["x"] == [0.8701, 0.8633, 0.86, 0.8555]
    assert searched["marker"]["symbol"] == "diamond-open"
    axis = figure["layout"]["yaxis"]
    assert axis["ticktext"] == ["trial 9<br>tie", "trial 0<br>tie, winner", "trial 4", "trial 7<br>failed"]
    assert axis["range"][0] > axis["range"][1], "the best is on top"


def test_rows_of_the_same_candidate_lie_within_its_row() -> None:
    for trace in confirmation_plot(Confirmation.model_validate(tie()))["data"]:
        assert {round(y) for y in trace["y"]} <= {0, 1, 2, 3}
    assert [round(y) for y in confirmation_plot(Confirmation.model_validate(tie()))["data"][1]["y"]] == [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
    ]


def test_the_page_says_why_how_much_was_flattery_and_what_failed() -> None:
    page = page_of(tie())
    assert "Trials 9 and 0 are a tie; 0 is smaller" in page
    assert "so the search flattered it by 0.0041." in page
    assert "judged by their difference, image by image." in page
    assert "Trial 7 failed with seeds 1, 2, 3: loss is nan." in page
    assert page.count('<tr class="winner">') == 1
    assert page.index('class="winner"') > page.index("0.8612")


def test_a_loss_and_a_single_candidate_have_a_section_too() -> None:
    page = page_of(by_loss())
    assert "smaller is better" in page
    assert "tie" not in page
    alone = confirmation([candidate(3, 0.8, 0.82)], reason="trial <3> is the only one")
    page = page_of(alone)
    assert "Trial &lt;3&gt; is the only one." in page
    assert "The search saw 0.8200" in page
    assert "difference" not in page
