"""What `ls` and `show` print: records first, tables second. Reads a run's files; starts neither Ray nor torch."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from search.commands import quoted, run_command
from search.runs.folder import RESUMABLE, status_now
from search.runs.paths import (
    RunPaths,
    find_run,
    list_runs,
    read_json,
)
from search.runs.tables import (
    best_trial,
    pareto_front,
    ranked,
    read_table,
    settings_of,
)
from search.show.confirmation import render_confirmation
from search.show.ledger import render_ledger
from search.show.quoting import (
    CROSS_FITTED,
    optimism_text,
    origin_text,
    quote,
)
from segcore.errors import SegsearchError
from segcore.objective import Objective
from segcore.scores.scorer import CARD_SCORERS
from segcore.sealed.card import CARD_FILE, read_card

METRICS = {scorer.name: scorer.label for scorer in CARD_SCORERS}
"""The scores of a card, and what tables call them."""
MAX_CLASSES = 12


def run_rows(results: Path) -> list[dict[str, Any]]:
    """One record a run, newest first."""
    return [_run_row_or_error(paths) for paths in list_runs(results)]


def run_details(name_or_path: str, results: Path) -> dict[str, Any]:
    """What `show` prints: `run`, `card`, `trials` (best first), `front` (cheapest last), and what was made of it.

    Raises:
        RunError: No such run.
    """
    paths = find_run(name_or_path, results)
    card = _card(paths)
    trials = read_table(paths.trials) if paths.trials.exists() else []
    settings = _search_settings(paths)
    objective = Objective(settings["metric"], settings["mode"], settings.get("second_metric"))
    best = best_trial(trials, objective)
    return {
        "run": {**read_json(paths.run), **_run_row(paths), "folder": str(paths.root)},
        "states": dict(Counter(row["state"] for row in trials)),
        "best_trial": best["number"] if best else None,
        "trials": ranked(trials, objective),
        "metric": objective.metric,
        "second_metric": objective.second,
        "front": _front(trials, objective),
        "confirmation": read_json(paths.confirmation) if paths.confirmation.exists() else None,
        "ledger": read_json(paths.ledger) if paths.ledger.exists() else None,
        "card": card,
        "exports": read_json(paths.export).get("targets", []) if paths.export.exists() else [],
        "dashboard": quoted("optuna-dashboard", f"sqlite:///{paths.study}") if paths.study.exists() else None,
    }


def render_run(details: dict[str, Any], top: int) -> list[RenderableType]:
    """The tables of `show`."""
    run, card = details["run"], details["card"]
    lines = [f"run {run['name']}: {run['status']}, {run['seconds'] / 60:.1f} minutes, in {run['folder']}"]
    if run.get("error"):
        lines.append(f"error: {run['error']}")
    for note in run.get("extensions", []):
        keys = ", ".join(note["changed"])
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(note["when"]))
        lines.append(f"extended {when} by {note['num_samples']} trials{f'; changed: {keys}' if keys else ''}")
    if run.get("stopped_by"):
        lines.append(f"stopped by search.{run['stopped_by']['rule']}: {run['stopped_by']['detail']}")
    if run["status"] in RESUMABLE:
        lines.append(f"go on with: {run_command('resume', Path(run['folder']))}")
    if details["dashboard"]:
        lines.append(f"all trials: {details['dashboard']}")
    parts: list[RenderableType] = [Text("\n".join(lines))]
    if details["trials"]:
        parts.append(_trial_table(details, top))
    if details["confirmation"]:
        parts += render_confirmation(details["confirmation"])
    if details["ledger"]:
        parts += render_ledger(details["ledger"], run["name"])
    if details["front"]:
        parts += _front_parts(details)
    if card:
        parts += _card_tables(card)
    for export in details["exports"]:
        state = "ok" if not export.get("error") else f"FAILED: {export['error']}"
        parts.append(Text(f"export {export['target']}:{export['location']}  {state}"))
    return parts


def short_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The last part of each dotted key, where that is enough to tell them apart and says something."""
    leaves = Counter(key.rsplit(".", 1)[-1] for key in values)
    leaves["name"] = 2
    return {key if leaves[key.rsplit(".", 1)[-1]] > 1 else key.rsplit(".", 1)[-1]: v for key, v in values.items()}


def _trial_table(details: dict[str, Any], top: int) -> Table:
    shown = details["trials"][:top]
    states = ", ".join(f"{count} {state}" for state, count in sorted(details["states"].items()))
    table = Table(title=f"trials, best first ({states})", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("trial", "state", "IoU", "Dice", "threshold", "epoch"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for row in shown:
        settings = short_names(settings_of(row))
        table.add_row(
            str(row["number"]), row["state"], _number(row.get("val/iou")), _number(row.get("val/dice")),
            _number(row.get("val/threshold"), 3), f"{row['best_epoch'] or '-'}/{row['epochs']}",
            Text(row["error"] or "  ".join(f"{key}={_cell(v)}" for key, v in settings.items() if v is not None)),
        )  # fmt: skip
    return table


def _front(trials: list[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """A record for each trial that no other one beats in both metrics, best value first, and so cheapest last."""
    rows = {row["number"]: row for row in trials}
    return [
        {
            "trial": number,
            "value": rows[number]["value"],
            "cost": rows[number][str(objective.second)],
            "settings": settings_of(rows[number]),
        }
        for number in pareto_front(trials, objective)
    ]


def _front_parts(details: dict[str, Any]) -> list[RenderableType]:
    metric, second = details["metric"], details["second_metric"]
    table = Table(title=f"no trial beats these in {metric} and {second}", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("trial", metric, second):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for row in details["front"]:
        cost = f"{row['cost']:,.0f}" if second == "cost/parameters" else f"{row['cost']:.2f}"
        table.add_row(str(row["trial"]), _number(row["value"]), cost, _settings_text(row["settings"]))
    seal = run_command("seal", Path(details["run"]["folder"]), "--trial", "N", "-o", "FOLDER")
    return [table, Text(f"seal one of them: {seal}")]


def _settings_text(settings: dict[str, Any]) -> Text:
    return Text("  ".join(f"{key}={_cell(value)}" for key, value in short_names(settings).items()))


def score_rows(card: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The card's scores by what they were earned on, the cross-fitted one after val's own, each with `chose`."""
    rows: list[tuple[str, dict[str, Any]]] = []
    for split, score in card.get("scores", {}).items():
        rows.append((split, score))
        if "cross_fitted" in score:
            chose = [what for what in score["chose"] if what != "threshold"]
            rows.append((CROSS_FITTED, {**score["cross_fitted"], "chose": chose}))
    return rows


def _card_tables(card: dict[str, Any]) -> list[RenderableType]:
    table = Table(title=f"sealed model: {origin_text(card['origin'])}", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("split", "images", "IoU", "95% interval", "Dice", "IoU pooled", "it also chose"):
        table.add_column(title, justify="right")
    for name, score in score_rows(card):
        low, high = score["iou_interval"]
        table.add_row(
            name, str(score["num_images"]), f"{score['iou']:.4f}", f"{low:.4f} - {high:.4f}", f"{score['dice']:.4f}",
            _number(score.get("iou_pooled")), ", ".join(score["chose"]) or "nothing",
        )  # fmt: skip
    threshold = card["threshold"]
    table.caption = (
        f"threshold {threshold['value']:.4f} ({threshold['chosen_by']}); auto gives {threshold['auto_would_be']:.4f} "
        f"with val IoU {threshold['val_iou_at_auto']:.4f}"
    )
    if "optimism" in card:
        table.caption += f"\n{optimism_text(card['optimism'])}"
    table.caption_justify = "left"
    found = quote(card)
    split = card["scores"][found.split] if found else {}
    return [table, *([scores_table(split, found.split)] if found and "boundary_iou" in split else [])]


def scores_table(score: dict[str, Any], split: str) -> Table:
    """All scores of one split: per image, pooled, by object size and by class, and the worst images."""
    table = Table(title=f"all scores on {split}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for title in ("images", *METRICS.values()):
        table.add_column(title, justify="right", no_wrap=True)
    for name, part in score_parts(score):
        table.add_row(Text(name), str(part.get("num_images", "")), *(_number(part.get(key)) for key in METRICS))
    return table


def score_parts(score: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What the table of all scores has a row for, in words, and each row's scores."""
    pooled = {key: score[f"{key}_pooled"] for key in METRICS}
    rows = [("mean per image", score), ("all pixels pooled", {**pooled, "num_images": score["num_images"]})]
    rows += [(f"{size} objects" if size != "empty" else "empty masks", p) for size, p in score["by_size"].items()]
    by_class = sorted(score["by_class"].items(), key=lambda item: float(item[1]["iou"]))
    rows += [(f"class {name or '(none)'}", part) for name, part in by_class[:MAX_CLASSES]]
    if len(by_class) > MAX_CLASSES:
        rows[-1] = (f"{rows[-1][0]} ({len(by_class) - MAX_CLASSES} better classes: see card.json)", rows[-1][1])
    return rows + [(f"worst: {image['name']}", image) for image in score["worst_images"]]


def _run_row_or_error(paths: RunPaths) -> dict[str, Any]:
    """One damaged run must not hide the others."""
    try:
        return _run_row(paths)
    except (SegsearchError, OSError, ValueError, KeyError) as error:
        unknown: dict[str, Any] = dict.fromkeys(("kind", "created"), "?")
        return {
            **unknown, "name": paths.name, "status": f"unreadable: {error}", "seconds": 0.0,
            "trials": None, "iou": None, "split": None,
        }  # fmt: skip


def _run_row(paths: RunPaths) -> dict[str, Any]:
    record = read_json(paths.run)
    card = _card(paths)
    found = quote(card)
    return {
        "name": paths.name,
        "kind": record.get("kind", "search"),
        "status": status_now(record),
        "created": time.strftime("%Y-%m-%d %H:%M", time.localtime(record["created"])),
        "seconds": record.get("timings", {}).get("total_s", 0.0),
        "trials": len(read_table(paths.trials)) if paths.trials.exists() else None,
        "iou": found.score["iou"] if found else None,
        "split": found.name if found else None,
    }


def _card(paths: RunPaths) -> dict[str, Any] | None:
    return read_card(paths.best) if (paths.best / CARD_FILE).is_file() else None


def _search_settings(paths: RunPaths) -> dict[str, Any]:
    """The config's `search` section as it is written, which is quicker to read than the config."""
    import yaml

    section: dict[str, Any] = yaml.safe_load(paths.config.read_text(encoding="utf-8"))["search"]
    return section


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
