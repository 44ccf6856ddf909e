from report_runs import row, sources

from search.report.pareto import front, front_of


def measured(number: int, value: float, cost: float | None, pareto: bool) -> dict[str, object]:
    return row(number, value, **{"cost/parameters": cost, "pareto": pareto, "param/model.depth": number})


ROWS = [
    measured(0, 0.9, 500.0, True), measured(1, 0.5, 600.0, False), measured(2, 0.7, 100.0, True),
    measured(3, 0.8, None, False),
]  # fmt: skip


def test_the_front_is_the_one_of_the_table_cheapest_first() -> None:
    record = front_of(ROWS, "cost/parameters")
    assert record is not None
    assert record["label"] == "parameters"
    members = [(point["number"], point["cost"], point["value"]) for point in record["front"]]
    assert members == [(2, 100.0, 0.7), (0, 500.0, 0.9)]
    assert [point["number"] for point in record["points"]] == [0, 1, 2]
    assert record["front"][0]["settings"] == {"model.depth": 2}


def test_without_the_columns_or_a_second_metric_there_is_none() -> None:
    assert front_of([row(0, 0.5), row(1, 0.6)], "cost/parameters") is None
    assert front_of([row(0, 0.5, **{"cost/parameters": 5.0})], "cost/parameters") is None
    assert front(sources(trials=ROWS)) is None
    made = sources(trials=ROWS)
    made.config_tree["search"]["second_metric"] = "cost/parameters"
    assert front(made) == front_of(ROWS, "cost/parameters")
