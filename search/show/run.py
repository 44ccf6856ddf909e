"""What `show` prints of one run, whether it is running, has ended or was killed: a record for programs, and tables."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from search.commands import quoted, run_command
from search.runs.reading import Run
from search.runs.records import RESUMABLE
from search.show.confirmation import render_confirmation
from search.show.ledger import render_ledger
from search.show.listing import run_line
from search.show.quoting import number_text, value_text
from search.show.scores import card_tables


def run_details(run: Run) -> dict[str, Any]:
    """What `show --json` prints.

    Returns:
        `run`, `card`, `trials` (best first), `front` (cheapest last), and what was made of it.

    Raises:
        RunError, BundleError: A file of the run cannot be read.
    """
    best, columns = run.trials.best(), {row["number"]: row for row in run.trials.table()}
    return {
        "run": {**run.record.tree(), **asdict(run_line(run)), "folder": str(run.paths.root)},
        "states": run.trials.states(),
        "best_trial": best.number if best else None,
        "trials": [columns[row.number] for row in run.trials.ranked()],
        "metric": run.objective.metric,
        "second_metric": run.objective.second,
        "front": [
            {"trial": row.number, "value": row.value, "cost": row.metrics[str(run.objective.second)],
             "settings": dict(row.params)}
            for row in run.trials.front()
        ],
        "confirmation": run.confirmation.tree() if run.confirmation else None,
        "ledger": run.ledger.tree() if run.ledger else None,
        "card": run.card.tree() if run.card else None,
        "exports": [export.tree() for export in run.exports],
        "dashboard": _dashboard(run),
    }  # fmt: skip


def render_run(run: Run, top: int) -> Iterator[RenderableType]:
    """The tables of `show`.

    Args:
        run: The run.
        top: How many trials to list.

    Raises:
        RunError, BundleError: A file of the run cannot be read.
    """
    yield Text("\n".join(_lines(run)))
    if len(run.trials):
        yield _trial_table(run, top)
    if run.confirmation:
        yield from render_confirmation(run.confirmation)
    if run.ledger:
        yield from render_ledger(run.ledger, run.name)
    if run.trials.front():
        yield from _front_parts(run)
    if run.card:
        yield from card_tables(run.card)
    for export in run.exports:
        state = "ok" if not export.error else f"FAILED: {export.error}"
        yield Text(f"export {export.target}:{export.location}  {state}")


def short_names(values: Mapping[str, object]) -> dict[str, object]:
    """The last part of each dotted key, where that is enough to tell them apart and says something."""
    leaves = Counter(key.rsplit(".", 1)[-1] for key in values)
    leaves["name"] = 2
    return {key if leaves[key.rsplit(".", 1)[-1]] > 1 else key.rsplit(".", 1)[-1]: v for key, v in values.items()}


def _lines(run: Run) -> Iterator[str]:
    record, seconds = run.record, run.record.timings.get("total_s", 0.0)
    yield f"run {run.name}: {run.status}, {seconds / 60:.1f} minutes, in {run.paths.root}"
    if record.error:
        yield f"error: {record.error}"
    for note in record.extensions:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(note.when))
        changed = f"; changed: {', '.join(note.changed)}" if note.changed else ""
        yield f"extended {when} by {note.num_samples} trials{changed}"
    if record.stopped_by:
        yield f"stopped by search.{record.stopped_by.rule}: {record.stopped_by.detail}"
    if run.card is None and (best := run.trials.best()) is not None:
        metric = run.objective.metric
        yield f"best so far: trial {best.number}, {metric} {number_text(best.value)} after epoch {best.best_epoch}"
    if run.status in RESUMABLE:
        yield f"continue with: {run_command('resume', run.paths.root)}"
    if (dashboard := _dashboard(run)) is not None:
        yield f"all trials: {dashboard}"


def _dashboard(run: Run) -> str | None:
    return quoted("optuna-dashboard", f"sqlite:///{run.paths.study}") if run.paths.study.exists() else None


def _trial_table(run: Run, top: int) -> Table:
    states = ", ".join(f"{count} {state}" for state, count in run.trials.states().items())
    table = Table(title=f"trials, best first ({states})", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("trial", "state", "IoU", "Dice", "threshold", "epoch"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for row in run.trials.ranked()[:top]:
        metrics = row.metrics
        table.add_row(
            str(row.number), row.state, number_text(metrics.get("val/iou")), number_text(metrics.get("val/dice")),
            number_text(metrics.get("val/threshold"), 3), f"{row.best_epoch or '-'}/{row.epochs}",
            Text(row.error) if row.error else _settings_text(row.params),
        )  # fmt: skip
    return table


def _front_parts(run: Run) -> Iterator[RenderableType]:
    metric, second = run.objective.metric, str(run.objective.second)
    table = Table(title=f"no trial beats these in {metric} and {second}", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("trial", metric, second):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for row in run.trials.front():
        cost = row.metrics[second]
        shown = f"{cost:,.0f}" if second == "cost/parameters" else f"{cost:.2f}"
        table.add_row(str(row.number), number_text(row.value), shown, _settings_text(row.params))
    yield table
    yield Text(f"seal one of them: {run_command('seal', run.paths.root, '--trial', 'N', '-o', 'FOLDER')}")


def _settings_text(settings: Mapping[str, object]) -> Text:
    return Text("  ".join(f"{key}={value_text(value)}" for key, value in short_names(settings).items()))
