"""The sections of the report's page, in their order; a record that is None has none."""

import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import yaml

from search.report import figures
from search.report.markup import (
    cost_text,
    duration,
    facts_list,
    number,
    numbers_text,
    plot,
    section,
    settings_text,
    table,
)
from search.report.sections.confirmation import confirm_section
from search.report.sections.ledger import ledger_section
from search.report.sections.score import quoted_score, scores_section
from search.report.sections.threshold import threshold_section
from search.show.quoting import origin_text

ORIGINS = {
    "config": "the config's own values",
    "enqueued": "given in the config",
    "start": "spread evenly, before there is much to learn from",
    "prior": "drawn from what the config believes",
    "fork": "an altered copy of a better trial, going on from its weights",
    "gp": "a Gaussian process over settings and epochs",
    "rung_tpe": "TPE that compares trials at a rung that both reached",
    "tpe": "plain TPE",
    "qmc": "the next point of a Sobol sequence",
    "random": "drawn evenly",
}
"""Who proposes trials, in words."""


def render(record: Mapping[str, Any], images: Mapping[int, Sequence[str]]) -> Iterator[str]:
    """Every section that applies, as HTML; `images` are the pictures by their index."""
    head = record["headline"]
    metric = head["metric"]
    yield _headline(head, record["best_trials"])
    if record["scores"]:
        yield scores_section(record["scores"])
    if record["history"]:
        yield _history(record["history"])
    if record["best_trials"]:
        yield _best(record["best_trials"], metric, (head["sealed"] or {}).get("trial"))
    if record["confirmation"]:
        yield confirm_section(record["confirmation"])
    if record["ledger"]:
        yield ledger_section(record["ledger"])
    if record["front"]:
        yield _front(record["front"], metric)
    if record["failures"]:
        yield _failures(record["failures"])
    if record["importances"]:
        yield _importances(record["importances"], metric)
    if record["threshold"]:
        yield threshold_section(record["threshold"])
    if record["origins"]:
        yield _origins(record["origins"], metric)
    if record["overlays"] and images:
        yield _overlays(record["overlays"], images)
    yield _configuration(record["configuration"])


def _headline(head: Mapping[str, Any], best: Sequence[Mapping[str, Any]] | None) -> str:
    kind = "search" if head["kind"] == "search" else "training run"
    parts = [f"<h1>{escape(head['name'])}</h1>"]
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(head["created"]))
    parts.append(f'<p class="soft">{kind}, begun {created}, status: {escape(head["status"].replace("_", " "))}</p>')
    if head["error"]:
        parts.append(f'<p class="bad">{escape(head["error"])}</p>')
    parts.append(quoted_score(head))
    if head["quoted"] is None and best:
        parts.append(
            f"<p>Nothing is sealed yet. The best trial so far is {best[0]['number']}, with "
            f"{escape(head['metric'])} {best[0]['value']:.4f} on val.</p>"
        )
    parts.append(facts_list(_facts(head)))
    return section("", *parts)


def _facts(head: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sealed, threshold = head["sealed"], head["threshold"]
    if sealed:
        yield "sealed model", origin_text(sealed)
    if head["tie"]:
        yield "tie", head["tie"]
    if threshold:
        yield "threshold", f"{threshold['value']:.4f}, chosen by: {threshold['chosen_by']}"
    yield "judged by", f"{head['metric']}, {'larger' if head['mode'] == 'max' else 'smaller'} is better"
    if head["num_samples"] is not None:
        states = ", ".join(f"{count} {state}" for state, count in head["states"].items())
        yield "trials", f"{head['trials']} of {head['num_samples']}{f': {states}' if states else ''}"
    yield "epochs trained", str(head["epochs"])
    timings = dict(head["timings"])
    if timings:
        total = duration(timings.pop("total_s", 0.0))
        stages = ", ".join(f"{stage.removesuffix('_s')} {duration(s)}" for stage, s in timings.items() if s >= 1.0)
        yield "time", f"{total} in all{f' ({stages})' if stages else ''}"
    if head["stopped_by"]:
        yield "ended by", f"search.{head['stopped_by']['rule']}: {head['stopped_by']['detail']}"
    for note in head["extensions"]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(note["when"]))
        changed = f"; changed: {', '.join(note['changed'])}" if note["changed"] else ""
        yield "extended", f"{when}, after {note['trials_before']} trials, by {note['num_samples']}{changed}"


def _history(history: Mapping[str, Any]) -> str:
    parts = []
    if history["trials"]:
        parts += [
            "<p>A trial's value is that of its best epoch, whether it ran to its end or was stopped before.</p>",
            '<div class="two"><div><h3>Trial by trial</h3>', plot(figures.by_number(history)),
            "</div><div><h3>By what it cost</h3>", plot(figures.by_epochs(history)), "</div></div>",
        ]  # fmt: skip
    winner = next((curve["number"] for curve in history["curves"] if curve["is_winner"]), None)
    parts.append("<h3>Learning curves</h3>")
    if history["trials"]:
        left = history["num_curves_left_out"]
        note = f" The {len(history['curves'])} best trials; {left} more are left out." if left else ""
        blue = f"Blue: trial {winner}, the winner. " if winner is not None else ""
        legend = "Green: ran to the end. Grey: stopped at a rung or by a rule. Red: failed."
        parts.append(f'<p class="soft">{blue}{legend}{note} Point at a line for its settings.</p>')
    parts.append(plot(figures.learning_curves(history)))
    return section("How it went", *parts, css="long")


def _best(rows: Sequence[Mapping[str, Any]], metric: str, winner: int | None) -> str:
    extra = [] if metric == "val/iou" else [("IoU", "n")]
    heads = [("trial", "n"), ("state", ""), (metric, "n"), *extra, ("Dice", "n"), ("threshold", "n"), ("epoch", "n")]
    body = []
    for row in rows:
        values = [
            (str(row["number"]), "n"), (row["state"], ""), (number(row["value"]), "n"),
            *([(number(row["val/iou"]), "n")] if extra else []), (number(row["val/dice"]), "n"),
            (number(row["val/threshold"], 3), "n"), (f"{row['best_epoch']}/{row['epochs']}", "n"),
            (settings_text(row["settings"]), "text"),
        ]  # fmt: skip
        body.append(("winner" if row["number"] == winner else "", values))
    return section("Best trials", table([*heads, ("settings", "text")], body))


def _failures(groups: Sequence[Mapping[str, Any]]) -> str:
    body = [
        ("", [
            (str(group["count"]), "n"), (group["kind"], ""), (numbers_text(group["trials"]), ""),
            (group["first_error"] or "no message", "text"),
        ])
        for group in groups
    ]  # fmt: skip
    return section(
        "Failed trials", table([("trials", "n"), ("failure", ""), ("numbers", ""), ("first error", "text")], body)
    )


def _importances(record: Mapping[str, Any], metric: str) -> str:
    if record["shares"]:
        intro = (
            f"How much the best of {record['num_trials']} trials differ from all of them in each parameter "
            "(PED-ANOVA). What one parameter does through another is not in it."
        )
        parts = [f"<p>{intro}</p>", plot(figures.importance_bars(record["shares"]))]
    else:
        parts = [
            f"<p>{record['num_trials']} trials with a value are too few to tell which parameters mattered; "
            f"that takes {record['min_trials']}.</p>"
        ]
    slices = [f"<div>{plot(figures.slice_plot(part, metric))}</div>" for part in record["slices"]]
    parts += ["<h3>Value against parameter</h3>", f'<div class="two">{"".join(slices)}</div>']
    return section("Parameters", *parts, css="long")


def _front(front: Mapping[str, Any], metric: str) -> str:
    body = [
        ("", [
            (str(point["number"]), "n"), (number(point["value"]), "n"), (cost_text(point["cost"]), "n"),
            (settings_text(point["settings"]), "text"),
        ])
        for point in front["front"]
    ]  # fmt: skip
    heads = [("trial", "n"), (metric, "n"), (front["label"], "n"), ("settings", "text")]
    return section(
        f"{metric} against {front['label']}",
        "<p>No trial is both better and cheaper than one of the front.</p>",
        plot(figures.front_plot(front, metric)),
        table(heads, body),
    )


def _origins(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    body = [
        ("winner" if row["found_winner"] else "", [
            (row["origin"], ""), (str(row["trials"]), "n"), (number(row["mean"]), "n"), (number(row["best"]), "n"),
            ("found the winner" if row["found_winner"] else "", ""),
        ])
        for row in rows
    ]  # fmt: skip
    known = {row["origin"] for row in rows}
    heads = [("proposed by", ""), ("trials", "n"), (f"mean {metric}", "n"), (f"best {metric}", "n"), ("", "")]
    return section(
        "Where the trials came from",
        table(heads, body),
        f'<p class="soft">{" ".join(f"{name}: {said}." for name, said in ORIGINS.items() if name in known)}</p>',
    )


def _overlays(record: Mapping[str, Any], images: Mapping[int, Sequence[str]]) -> str:
    found = []
    for image in record["shown"]:
        names = ("image", "image with its mask", "image with the prediction")
        triple = "".join(
            f'<img src="{source}" alt="{name}">' for source, name in zip(images[image["index"]], names, strict=True)
        )
        caption = f"IoU {image['iou']:.4f}"
        found.append(f'<figure><figcaption>{caption}</figcaption><div class="triple">{triple}</div></figure>')
    key = (
        '<span class="key"><i style="background:#2ea043"></i>found <i style="background:#1f77d8"></i>missed '
        '<i style="background:#dc322f"></i>wrongly found</span>'
    )
    which = "all" if len(record["shown"]) == record["stored"] else "the worst and the best"
    return section(
        "What it sees",
        f"<p>Of the {record['stored']} validation images that the winner's checkpoint keeps, {which}, worst first: "
        f"image, mask, prediction.{key}</p>",
        f'<div class="overlays">{"".join(found)}</div>',
    )


def _configuration(record: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True)
    host = record["host"]
    machine = ", ".join(str(host[key]) for key in ("platform", "python") if key in host)
    facts = [
        ("versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
        ("machine", f"{host.get('cpus', '?')} CPUs, {machine}"),
        ("seed", str(record["seed"])),
        ("data", str(record["data_fingerprint"] or "unknown")[:16]),
    ]
    return section(
        "Config and versions",
        facts_list(facts),
        f"<details><summary>The resolved config</summary><pre>{escape(text)}</pre></details>",
        css="long",
    )
