"""How `ledger.json` is shown: what each part of the winner's settings is worth, as rows of text and in the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from search.runs.rerun_records import GainAlternative, GainStep, GainThreshold, Ledger, Level, Worth
from search.show.confirmation import judged_text
from search.show.quoting import (
    number_text,
    range_text,
    signed_range_text,
    signed_text,
    value_text,
)

NOISE = "within noise"
_SELECTORS = frozenset({"arch", "encoder", "policy", "name"})
"""Settings whose value, beside its group, says what it is."""


def render_ledger(record: Ledger, name: str) -> Iterator[RenderableType]:
    """The steps from the baseline to the winner, then what other choices are worth, then the noise.

    Args:
        record: What `ledger.json` holds.
        name: The run's.
    """
    heads, rows = ledger_table(record)
    title = f"{name}: {ledger_title(record)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for head in heads:
        if head == "importance":
            table.add_column("impor-\ntance", justify="right", no_wrap=True)
        elif head == "changed":
            table.add_column(head, overflow="fold", min_width=13)
        elif head.endswith("interval"):
            table.add_column(head, justify="right", min_width=10)
        elif not head:
            table.add_column(head, max_width=6)
        elif head == "step":
            table.add_column(head, min_width=12)
        else:
            table.add_column(head, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        table.add_row(*map(Text, row), style="bold" if index == len(rows) - 1 else "")
    yield table
    lines = list(alternative_lines(record))
    if lines:
        yield Text("at the winner, one choice against another:")
        yield from (Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines)
    yield Text("\n".join([*ledger_lines(record), ""]))


def ledger_title(record: Ledger) -> str:
    """From what to what, and on what it is judged."""
    seeds = len(record.seeds)
    return (
        f"from {_begin_text(record)} to trial {record.trial}, {judged_text(record)}, "
        f"mean of {seeds} seed{'s' if seeds != 1 else ''}"
    )


def ledger_table(record: Ledger) -> tuple[list[str], list[list[str]]]:
    """Titles, and rows of text: the baseline, each step, and the total."""
    steps, total = record.steps, record.total
    has_shares = any(step.importance is not None for step in steps)
    heads = ["step", "changed", "mean", "worth", f"{record.confidence:.0%} interval", ""]
    rows = [["baseline", "", number_text(record.baseline.mean), "", "", ""]]
    for step in steps:
        rows.append([step.group, "\n".join(changes(step)), number_text(step.mean), *_worth_cells(step)])
    mean = number_text(record.winner.mean)
    rows.append(["total", f"trial {record.trial}", mean, *_worth_cells(total)])
    if has_shares:
        heads.append("importance")
        for row, share in zip(rows, [None, *(step.importance for step in steps), None], strict=True):
            row.append("" if share is None else f"{share:.0%}")
    return heads, rows


def changes(step: GainStep) -> list[str]:
    """`dice 1 -> 0.5` for each setting that a step changes; without a name where group and value say what it is.

    What the baseline has no such setting for has only the value after the step.
    """
    return [
        f"{_name_of(key)}{'' if before is None else f'{value_text(before)} -> '}{value_text(after)}"
        for key, before, after in step.changes
    ]


def alternative_lines(record: Ledger) -> Iterator[str]:
    """What each choice is worth against the next best one, and `auto` against a fixed threshold."""
    for other in record.alternatives:
        share = "" if other.importance is None else f"; importance {other.importance:.0%}"
        yield f"{other.group}: {choice_text(other)} (as in trial {other.of_trial}): {worth_text(other)}{share}"
    if record.threshold:
        yield f"threshold: {threshold_text(record.threshold)}: {worth_text(record.threshold)}"


def alternative_table(record: Ledger) -> tuple[list[str], list[list[str]]]:
    """The same as titles and rows of text."""
    heads = ["of", "choice", "worth", f"{record.confidence:.0%} interval", "", "importance"]
    rows = [
        [
            other.group, f"{choice_text(other)} (as in trial {other.of_trial})", *_worth_cells(other),
            "" if other.importance is None else f"{other.importance:.0%}",
        ]
        for other in record.alternatives
    ]  # fmt: skip
    if record.threshold:
        rows.append(["threshold", threshold_text(record.threshold), *_worth_cells(record.threshold), ""])
    if not any(row[-1] for row in rows):
        return heads[:-1], [row[:-1] for row in rows]
    return heads, rows


def choice_text(other: GainAlternative) -> str:
    """`attention_unet rather than unet`."""
    return f"{chosen_text(other.chosen)} rather than {chosen_text(other.instead)}"


def threshold_text(threshold: GainThreshold) -> str:
    """`auto rather than 0.5`."""
    return f"{value_text(threshold.chosen)} rather than {value_text(threshold.instead)}"


def worth_text(part: Worth) -> str:
    """`+0.0120 (-0.0030 to +0.0270), within noise`."""
    if part.worth is None:
        return "not known"
    note = f", {_note(part)}" if _note(part) else ""
    interval = f" ({signed_range_text(part.interval)})" if part.interval else ""
    return f"{signed_text(part.worth)}{interval}{note}"


def ledger_lines(record: Ledger) -> Iterator[str]:
    """Baseline and winner with their intervals, how they were scored, the noise of a seed, and what failed."""
    if not record.steps:
        yield f"trial {record.trial} has {_begin_text(record)}: there is no step to explain"
    baseline, winner = _level_text(record.baseline), _level_text(record.winner)
    yield (
        f"the baseline has {baseline} and trial {record.trial} has {winner}; a worth above 0 is a gain, whatever "
        "the metric"
    )
    if record.cross_fitted:
        yield "thresholds that are auto were chosen on one half of the images and scored on the other"
    noise = record.seed_noise
    if noise.sd is not None:
        yield (
            f"the same settings again differ by {noise.sd:.4f} (standard deviation); two trainings differ by up to "
            f"{noise.two_trainings:.4f} in 19 of 20 cases"
        )
    shares = [*(step.importance for step in record.steps), *(other.importance for other in record.alternatives)]
    if any(share is not None for share in shares):
        yield (
            f"importance: how much the search's values hung on those settings, over {record.importance_trials} "
            "trials (PED-ANOVA); it says nothing of the direction"
        )
    yield from record.notes
    for message in record.failed:
        yield f"failed: {message}"


def _begin_text(record: Ledger) -> str:
    """What the baseline is; a ledger may begin elsewhere than at the config's own values."""
    begin = ", ".join(record.begin)
    return f"the config's own values{f', but {begin},' if begin else ''}"


def _level_text(level: Level) -> str:
    interval = f" ({range_text(level.interval)})" if level.interval else ""
    return f"{number_text(level.mean)}{interval}"


def _worth_cells(part: Worth) -> list[str]:
    return [signed_text(part.worth), signed_range_text(part.interval), _note(part)]


def _note(part: Worth) -> str:
    if part.worth is None:
        return "not known"
    if part.interval is None:
        return "noise not known"
    return "" if part.clear else NOISE


def chosen_text(settings: Sequence[Sequence[Any]]) -> str:
    """Settings of one group on one line: `unet, dropout 0.25`."""
    return ", ".join(f"{_name_of(key)}{value_text(value)}" for key, value in settings)


def _name_of(key: str) -> str:
    """The key without its section, and a space; empty for a key whose value says what it is."""
    name = key.partition(".")[2]
    return f"{name} " if name and name not in _SELECTORS else ""
