from report_runs import card, full_card, run_with, score, subject

from search.report.sections.scores import SECTION, all_scores


def test_all_scores_have_a_row_each_and_of_many_classes_the_worst_are_shown() -> None:
    record = all_scores(run_with(card=full_card()))
    assert record is not None
    names = [row.name for row in record.rows]
    assert names[:6] == [
        "mean per image", "all pixels pooled", "empty masks", "small objects", "medium objects", "large objects",
    ]  # fmt: skip
    assert names[6:18] == [f"class c{i:02d}" for i in range(11)] + ["class c11 (2 better classes: see card.json)"]
    assert names[18:] == [f"worst: <{i}>" for i in range(5)]
    assert record.rows[19].scores["iou"] == 1 / 39
    page = SECTION.html(record, subject())
    assert "All scores on val" in page
    assert "worst: &lt;0&gt;" in page
    assert all_scores(run_with(card=card(0, val=score(0.7, [])))) is None, "a card of an earlier version"
    assert all_scores(run_with()) is None
