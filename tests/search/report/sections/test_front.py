import plotly.graph_objects as go
from report_runs import row, run_with, subject

from search.report.sections.front import SECTION, Front, front, front_plot

SECOND = {"search": {"second_metric": "cost/parameters"}}


def measured(number: int, value: float, cost: float | None, **columns: object) -> dict[str, object]:
    return row(number, value, **{"cost/parameters": cost, "param/model.depth": number, **columns})


ROWS = [measured(0, 0.9, 500.0), measured(1, 0.5, 600.0), measured(2, 0.7, 100.0), measured(3, 0.8, None)]


def front_of(*rows: dict[str, object]) -> Front | None:
    return front(run_with(trials=rows, config=SECOND))


def test_the_front_is_what_no_trial_beats_in_both_cheapest_first() -> None:
    record = front_of(*ROWS)
    assert record is not None
    assert record.label == "parameters"
    members = [(point.number, point.cost, point.value) for point in record.front]
    assert members == [(2, 100.0, 0.7), (0, 500.0, 0.9)]
    assert [point.number for point in record.points] == [0, 1, 2]
    assert record.front[0].settings == {"model.depth": 2}


def test_without_a_cost_or_a_second_metric_there_is_none() -> None:
    assert front_of(row(0, 0.5), row(1, 0.6)) is None
    assert front_of(row(0, None, "running", **{"cost/parameters": 5.0})) is None
    assert front(run_with(trials=ROWS)) is None


def test_costs_far_apart_have_a_log_axis_and_the_page_names_both_metrics() -> None:
    record = front_of(measured(0, 0.9, 1000.0), measured(1, 0.5, 10.0))
    assert record is not None
    figure = front_plot(record, "val/iou")
    go.Figure(figure)  # raises on a property that plotly does not have
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert (figure["data"][0]["x"], figure["data"][0]["y"]) == ([10.0, 1000.0], [0.5, 0.9])
    near = front_of(measured(0, 0.9, 50.0), measured(1, 0.5, 10.0))
    assert near is not None
    assert "type" not in front_plot(near, "val/iou")["layout"]["xaxis"]
    page = SECTION.html(record, subject("val/iou"))
    assert "<h2>val/iou against parameters</h2>" in page
    assert "1,000" in page
