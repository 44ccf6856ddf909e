"""What holds of every section of the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from report_runs import frozen, full_card, row, run_with, subject, write_curve, write_overlays
from rerun_records import ledger, tie

from search.report import section
from search.report.jsonable import as_json
from search.report.section import Section, Subject, all_sections
from search.runs.reading import Run

SECTIONS = all_sections()
KEYS = [
    "headline", "scores", "history", "best_trials", "confirmation", "ledger", "front", "failures", "importances",
    "threshold", "origins", "overlays", "configuration",
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """One that every section has something to say of."""
    write_curve(tmp_path, [0.0, 0.5, 1.0], [0.0, 0.8, 0.0], (0.5, 0.8))
    write_overlays(tmp_path, np.zeros((1, 4, 4), dtype=np.uint8), np.zeros((1, 4, 4), dtype=np.float32))
    states = ["complete", "failed"]
    return run_with(
        config={"search": {"second_metric": "cost/parameters"}},
        trials=[row(n, 0.5 + n / 10, s, **{"cost/parameters": 10.0, "param/a": 0.1}) for n, s in enumerate(states)],
        epochs=[{"number": 0, "epoch": 1, "val/iou": 0.5}],
        frozen=frozen([(s, {"a": 0.1}, {"origin": "gp"}) for s in states], {"a": FloatDistribution(0.0, 1.0)}),
        card=full_card(), confirmation=tie(), ledger=ledger(), checkpoints=[tmp_path],
    )  # fmt: skip


def test_they_are_found_in_the_order_of_the_page_and_the_keys_of_the_json_stay() -> None:
    assert [found.name for found in SECTIONS if found.name in KEYS] == KEYS


@pytest.mark.parametrize("of", SECTIONS, ids=lambda of: of.name)
def test_each_has_a_record_that_json_can_hold_and_a_place_on_the_page(of: Section[Any], run: Run) -> None:
    record = of.record(run)
    assert record is not None
    assert not isinstance(record, dict)
    assert json.loads(json.dumps(as_json(record), allow_nan=False)) == as_json(record)
    about = Subject("val/iou", run.sealed, (0, 0.5), run.checkpoints)
    page = of.html(record, about)
    assert page.startswith(f'<section id="{of.name}"')
    assert page.endswith("</section>\n")
    assert page.count("<section") == page.count("</section>") == 1
    assert ("<h2>" in page) == bool(of.title)


@pytest.mark.parametrize("of", SECTIONS, ids=lambda of: of.name)
def test_a_run_that_has_only_begun_does_not_break_it(of: Section[Any]) -> None:
    record = of.record(run_with())
    assert record is None or of.name in {"headline", "configuration"}
    if record is not None:
        assert of.html(record, subject()).startswith("<section")


def test_a_section_without_anything_to_draw_is_left_out() -> None:
    empty: Section[str] = Section("empty", 1, "Empty", lambda run: "", lambda record, subject: record)
    assert empty.html("", subject()) == ""
    assert empty.html("<p>", subject()) == '<section id="empty" class=""><h2>Empty</h2><p></section>\n'


def test_a_new_file_is_a_new_section_and_two_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "other_sections"
    package.mkdir()
    (package / "__init__.py").write_text("")
    code = (
        "from search.report.section import Section\n"
        'SECTION = Section({name!r}, {order}, "Note", lambda run: "x", lambda record, subject: record)\n'
    )
    (package / "late.py").write_text(code.format(name="late", order=5))
    (package / "early.py").write_text(code.format(name="early", order=4))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(section, "PACKAGE", "other_sections")
    assert [found.name for found in all_sections()] == ["early", "late"]
    (package / "third.py").write_text(code.format(name="late", order=6))
    with pytest.raises(ValueError, match=r"two sections of the report have the same name: \['early', 'late', 'late'\]"):
        all_sections()
