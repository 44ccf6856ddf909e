import io
from typing import Any

import pytest
import rerun_records
from rerun_records import step
from rich.console import Console

from search.runs.rerun_records import GainStep, Ledger, Worth
from search.show.ledger import (
    alternative_lines,
    changes,
    ledger_lines,
    ledger_table,
    render_ledger,
    worth_text,
)


def ledger(**fields: Any) -> Ledger:
    return Ledger.model_validate(rerun_records.ledger(**fields))


def printed(record: Ledger, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in render_ledger(record, "horses"):
        console.print(part, highlight=False)
    return console.export_text()


def test_the_table_goes_from_the_baseline_over_each_step_to_the_total() -> None:
    heads, rows = ledger_table(ledger())
    assert heads == ["step", "changed", "mean", "worth", "95% interval", "", "importance"]
    assert rows == [
        ["baseline", "", "0.8100", "", "", "", ""],
        ["encoder", "timm:resnet50 -> timm:tf_efficientnetv2_s.in21k_ft_in1k", "0.7900", "-0.0200",
         "-0.0300 to -0.0100", "", "40%"],
        ["loss", "dice 1 -> 0.7712", "0.7931", "+0.0031", "-0.0069 to +0.0131", "within noise", "5%"],
        ["scheduler", "plateau -> cosine\nwarmup_epochs 2", "0.8431", "+0.0500", "+0.0400 to +0.0600", "", ""],
        ["total", "trial 9", "0.8431", "+0.0331", "+0.0231 to +0.0431", "", ""],
    ]  # fmt: skip


def test_without_importances_there_is_no_column_of_them() -> None:
    record = ledger(steps=[step("threshold", 0.84, 0.03, ["threshold", 0.5, "auto"])], alternatives=[])
    heads, rows = ledger_table(record)
    assert "importance" not in heads
    assert {len(row) for row in rows} == {len(heads)}
    assert "importance" not in printed(record)


def test_a_choice_is_named_by_its_value_and_other_settings_by_their_key_too() -> None:
    changed = [["optimizer.name", "sgd", "adamw"], ["optimizer.lr", 0.1, 0.000123456]]
    assert changes(GainStep.model_validate(step("optimizer", 0.8, 0.1, *changed))) == [
        "sgd -> adamw",
        "lr 0.1 -> 0.0001235",
    ]
    assert changes(GainStep.model_validate(step("threshold", 0.8, 0.1, ["threshold", 0.5, "auto"]))) == ["0.5 -> auto"]


def test_alternatives_say_what_a_choice_is_worth_against_the_next() -> None:
    assert list(alternative_lines(ledger())) == [
        "architecture: attention_unet rather than unet, dropout 0.25 (as in trial 4): +0.0120 (-0.0030 to +0.0270), "
        "within noise; importance 23%",
        "augmentation: light rather than <b> (as in trial 11): +0.0300 (+0.0200 to +0.0400)",
        "threshold: auto rather than 0.5: +0.0040 (+0.0010 to +0.0070)",
    ]


def test_the_noise_of_a_seed_is_one_sentence() -> None:
    lines = list(ledger_lines(ledger()))
    assert lines[0].startswith("the baseline has 0.8100 (0.7800 - 0.8400) and trial 9 has 0.8431 (0.8100 - 0.8700)")
    assert "thresholds that are auto were chosen on one half of the images and scored on the other" in lines
    assert (
        "the same settings again differ by 0.0040 (standard deviation); two trainings differ by up to 0.0111 in 19 of "
        "20 cases"
    ) in lines
    assert "over 20 trials" in lines[-1]


def test_a_winner_that_is_the_baseline_has_no_steps() -> None:
    record = Ledger.model_validate(rerun_records.bare_ledger())
    assert record.num_images is None
    _, rows = ledger_table(record)
    assert [row[0] for row in rows] == ["baseline", "total"]
    text = printed(record)
    assert "trial 0 has the config's own values: there is no step to explain" in text
    assert "horses: from the config's own values to trial 0, val/loss, mean of 1 seed " in text
    assert "the baseline has 0.2500 and trial 0 has 0.2500; a worth" in text
    assert "val/loss has no values of single images\n" in text
    assert "failed: loss with seed 2: out of memory [GPU 0]" in text
    for absent in ("rather than", "standard deviation", "one half of the images"):
        assert absent not in text


def test_a_ledger_that_begins_elsewhere_says_where() -> None:
    text = printed(ledger(begin=["model.arch=unet", "threshold=0.5"]), width=160)
    assert "horses: from the config's own values, but model.arch=unet, threshold=0.5, to trial 9, val/iou on" in text
    assert "from the config's own values to trial 9" in printed(ledger(begin=[]))


def test_a_worth_that_no_training_could_tell_is_not_known() -> None:
    unknown = {"mean": None, "worth": None, "interval": None, "clear": False}
    record = ledger(steps=[{**step("loss", 0.8, 0.1, ["loss.dice", 1, 2]), **unknown}])
    _, rows = ledger_table(record)
    assert rows[1] == ["loss", "dice 1 -> 2", "-", "-", "-", "not known"]
    assert worth_text(Worth.model_validate(unknown)) == "not known"
    assert worth_text(Worth(worth=-0.1, interval=None, clear=False)) == "-0.1000, noise not known"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_nothing_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    text = printed(ledger(), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for word in ("horses: from", "-0.0200", "-0.0300", "+0.0131", "40%", "within", "noise", "rather than <b>"):
        assert word in text
    start = text.index("baseline")
    (changed,) = {line.find("timm:resnet50") for line in text[start:].splitlines()} - {-1}
    cells = "".join(line[changed:].partition("  ")[0] for line in text[start:].splitlines())
    assert "timm:tf_efficientnetv2_s.in21k_ft_in1k" in cells
