from typing import Any

import plotly.graph_objects as go
import pytest
from report_runs import subject
from rerun_records import bare_ledger, ledger, step, worth

from search.report.figures import Figure
from search.report.sections.ledger import GAIN, LOSS, NOISE_COLOR, ledger_plot, render
from search.runs.rerun_records import Ledger


def page_of(record: dict[str, Any]) -> str:
    return render(Ledger.model_validate(record), subject())


def plot_of(record: dict[str, Any]) -> Figure | None:
    return ledger_plot(Ledger.model_validate(record))


def test_bars_go_over_steps_total_alternatives_and_threshold_coloured_by_what_is_clear() -> None:
    figure = plot_of(ledger())
    assert figure is not None
    go.Figure(figure)  # raises on a property that plotly does not have
    assert figure["layout"]["yaxis"]["ticktext"] == [
        "encoder", "loss", "scheduler", "<b>total</b>", "architecture<br>not unet", "augmentation<br>not &lt;b&gt;",
        "threshold<br>not 0.5",
    ]  # fmt: skip
    by_name = {trace["name"]: trace for trace in figure["data"]}
    assert {name: trace["y"] for name, trace in by_name.items()} == {
        "a gain": [2, 3, 5, 6], "a loss": [0], "within noise": [1, 4],
    }  # fmt: skip
    assert [by_name[name]["marker"]["color"] for name in ("a gain", "a loss", "within noise")] == [
        GAIN, LOSS, NOISE_COLOR,
    ]  # fmt: skip
    assert figure["layout"]["showlegend"], "a single colour is explained too"
    assert by_name["a loss"]["x"] == [-0.02]
    assert by_name["a loss"]["error_x"]["array"] == pytest.approx([0.01])
    assert figure["layout"]["shapes"][0]["y0"] == 3.5, "between the total and the first alternative"


def test_long_names_are_cut_in_the_figure_and_whole_in_the_table() -> None:
    name = "timm:convnextv2_nano.fcmae_ft_in22k_in1k_384"
    other = {
        "group": "encoder", "chosen": [["model.encoder", "timm:resnet50"]], "instead": [["model.encoder", name]],
        "of_trial": 3, **worth(0.1), "importance": None,
    }  # fmt: skip
    figure = plot_of(ledger(alternatives=[other]))
    assert figure is not None
    assert max(len(line) for label in figure["layout"]["yaxis"]["ticktext"] for line in label.split("<br>")) < 32
    assert f"timm:resnet50 rather than {name}" in page_of(ledger(alternatives=[other]))


def test_the_page_has_both_tables_and_the_noise() -> None:
    page = page_of(ledger())
    assert "plateau -&gt; cosine\nwarmup_epochs 2" in page
    assert "light rather than &lt;b&gt; (as in trial 11)" in page
    assert "auto rather than 0.5" in page
    assert page.count("within noise</td>") == 2
    assert "Two trainings differ" not in page
    assert "two trainings differ by up to 0.0111 in 19 of 20 cases." in page


def test_a_winner_that_is_the_baseline_has_no_figure() -> None:
    assert plot_of(bare_ledger()) is None
    page = page_of(bare_ledger())
    assert "Trial 0 has the config&#x27;s own values: there is no step to explain." in page
    assert 'class="plot"' not in page
    assert "rather than" not in page
    assert "importance" not in page


def test_a_worth_that_is_not_known_has_no_bar_and_a_row() -> None:
    unknown = {**step("loss", 0.8, 0.1, ["loss.dice", 1, 2]), "mean": None, "worth": None, "interval": None}
    record = ledger(steps=[{**unknown, "clear": False}])
    figure = plot_of(record)
    assert figure is not None
    assert 0 not in [row for trace in figure["data"] for row in trace["y"]]
    assert "not known" in page_of(record)
