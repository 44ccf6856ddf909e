import io
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rerun_records import ledger, tie
from rich.console import Console

from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.folder import create_run, update_run
from search.runs.paths import RunPaths, find_run, write_json
from search.runs.reading import Run
from search.runs.tables import Tables, write_tables
from search.show.listing import run_lines
from search.show.run import render_run, run_details, short_names
from segcore.scores.scoring import ImageScore, summarize
from segcore.sealed.card import Optimism, read_card


def new_run(
    tmp_path: Path, name: str = "birds", *, kind: str = "search", mode: str = "max", **settings: Any
) -> RunPaths:
    metric = "val/iou" if mode == "max" else "val/loss"
    search = {"mode": mode, "metric": metric, **settings}
    config = SearchConfig.model_validate({"name": name, "results": str(tmp_path), "search": search})
    return create_run(config, kind)


def trial(number: int, value: float | None, state: str = "complete", **columns: Any) -> dict[str, Any]:
    return {
        "number": number, "state": state, "value": value, "best_epoch": 2 if value is not None else None,
        "epochs": 3 if value is not None else 0, "val/iou": value, "val/dice": value, "val/threshold": 0.25,
        "error": None, "ray_trial_ids": [f"ray-{number}"], **columns,
    }  # fmt: skip


def write_trials(paths: RunPaths, *rows: dict[str, Any]) -> None:
    write_tables(Tables(list(rows), []), paths.trials, paths.epochs)


def split_score(iou: float, *, chose: list[str]) -> dict[str, Any]:
    return {
        "num_images": 12, "iou": iou, "iou_interval": [iou - 0.05, iou + 0.05], "dice": iou + 0.01,
        "iou_pooled": iou + 0.02, "chose": chose,
    }  # fmt: skip


def write_card(paths: RunPaths, origin: dict[str, Any], **scores: dict[str, Any]) -> None:
    paths.best.mkdir()
    threshold = {"value": 0.25, "chosen_by": "config", "auto_would_be": 0.375, "val_iou_at_auto": 0.8125}
    write_json(paths.best / "card.json", {"format": 1, "origin": origin, "threshold": threshold, "scores": scores})


def open_run(tmp_path: Path) -> Run:
    return Run(find_run("birds", tmp_path))


def printed(run: Run, top: int = 10, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in render_run(run, top):
        console.print(part, highlight=False)
    return console.export_text()


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    new_run(tmp_path)
    (line,) = run_lines(tmp_path)
    row = asdict(line)
    details = run_details(open_run(tmp_path))
    assert row == {
        "name": "birds", "kind": "search", "status": "running", "created": row["created"], "seconds": 0.0,
        "trials": None, "iou": None, "split": None,
    }  # fmt: skip
    time.strptime(row["created"], "%Y-%m-%d %H:%M")
    assert (details["best_trial"], details["trials"], details["card"], details["exports"]) == (None, [], None, [])
    assert details["dashboard"] is None
    text = printed(open_run(tmp_path))
    assert "run birds: running, 0.0 minutes" in text
    assert "resume" not in text


def test_a_run_that_nobody_works_on_any_more_has_stopped(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    paths = new_run(tmp_path)
    update_run(paths, worker={"host": socket.gethostname(), "pid": gone.pid})
    assert run_lines(tmp_path)[0].status == "stopped"
    assert "continue with: segsearch resume birds" in printed(open_run(tmp_path))


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_can_go_on_says_how(tmp_path: Path, status: str) -> None:
    paths = new_run(tmp_path)
    update_run(paths, status=status, error="ResourceError: no node can run a trial [/tmp/x]")
    text = printed(open_run(tmp_path))
    assert "continue with: segsearch resume birds" in text
    assert ("error: ResourceError: no node can run a trial [/tmp/x]" in text) == (status == "failed")


def test_what_ended_a_search_and_what_went_on_is_told(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    notes = [
        {"when": 0.0, "num_samples": 4, "changed": {}},
        {"when": 0.0, "num_samples": 8, "changed": {"space.optimizer.lr": [1, 2], "search.sampler": ["tpe", "random"]}},
    ]
    update_run(paths, status="done", extensions=notes, stopped_by={"rule": "target", "detail": "trial 7 has it"})
    text = printed(open_run(tmp_path))
    assert "by 4 trials\n" in text
    assert "by 8 trials; changed: space.optimizer.lr, search.sampler\n" in text
    assert "stopped by search.target: trial 7 has it\n" in text


def test_trials_are_listed_best_first_with_what_was_searched(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    update_run(paths, status="done", timings={"total_s": 90.0})
    write_trials(
        paths,
        trial(0, 0.5, **{"param/optimizer.lr": 0.00123456, "param/lr_scheduler.name": "cosine"}),
        trial(1, None, "failed", error="out of memory: tried to allocate 2 GiB"),
        trial(2, 0.75, "pruned", **{"param/optimizer.lr": 0.1, "param/lr_scheduler.name": "plateau"}),
        trial(3, 0.5),
        trial(4, 0.875, "failed", error="NonFiniteLossError: epoch 3"),
    )
    details = run_details(open_run(tmp_path))
    assert details["best_trial"] == 2
    assert details["states"] == {"complete": 2, "failed": 2, "pruned": 1}
    assert [row["number"] for row in details["trials"]] == [2, 0, 3, 4, 1]
    text = printed(open_run(tmp_path))
    assert "1.5 minutes" in text
    assert "2 complete, 2 failed, 1 pruned" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["2", "pruned", "0.7500", "0.7500", "0.250", "2/3", "lr=0.1", "lr_scheduler.name=plateau"] in lines
    assert any("lr=0.001235" in line for line in lines)
    assert "out of memory: tried to allocate 2 GiB" in text
    only = printed(open_run(tmp_path), top=1)
    assert only.count("complete") == 1  # in the title alone
    json.dumps(details)


def test_in_mode_min_the_lowest_is_the_best(tmp_path: Path) -> None:
    paths = new_run(tmp_path, mode="min")
    write_trials(paths, trial(0, 0.5), trial(1, 0.25), trial(2, None, "failed"), trial(3, 0.75))
    details = run_details(open_run(tmp_path))
    assert details["best_trial"] == 1
    assert [row["number"] for row in details["trials"]] == [1, 0, 3, 2]


def test_the_front_of_two_metrics_is_shown_from_the_best_to_the_cheapest(tmp_path: Path) -> None:
    cost = "cost/parameters"
    paths = new_run(tmp_path, second_metric=cost)
    write_trials(
        paths,
        trial(0, 0.5, **{cost: 1200.0, "pareto": True, "param/model.base_channels": 4, "param/model.depth": None}),
        trial(1, 0.75, **{cost: 3_400_000.0, "pareto": True, "param/model.base_channels": 64, "param/model.depth": 3}),
        trial(2, 0.625, **{cost: 4_000_000.0, "pareto": False, "param/model.base_channels": 96}),
        trial(3, 0.875, "failed", error="x", **{cost: 10.0, "pareto": False}),
    )
    details = run_details(open_run(tmp_path))
    assert details["front"] == [
        {"trial": 1, "value": 0.75, "cost": 3_400_000.0, "settings": {"model.base_channels": 64, "model.depth": 3}},
        {"trial": 0, "value": 0.5, "cost": 1200.0, "settings": {"model.base_channels": 4}},
    ]
    lines = [line.split() for line in printed(open_run(tmp_path)).splitlines()]
    first, second = (
        lines.index(line)
        for line in (
            ["1", "0.7500", "3,400,000", "base_channels=64", "depth=3"],
            ["0", "0.5000", "1,200", "base_channels=4"],
        )
    )
    assert first < second
    json.dumps(details)


@pytest.mark.parametrize("second_metric", [None, "cost/latency_ms"])
def test_where_no_trial_has_a_cost_there_is_no_front_to_show(tmp_path: Path, second_metric: str | None) -> None:
    paths = new_run(tmp_path, second_metric=second_metric)
    write_trials(paths, trial(0, 0.5))
    assert run_details(open_run(tmp_path))["front"] == []
    assert "no trial beats these" not in printed(open_run(tmp_path))


def test_words_in_brackets_are_words_not_markup(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    write_trials(
        paths,
        trial(0, None, "failed", error="OSError: [/data/x] and [bold] cannot be read"),
        trial(
            1, 0.5, **{"param/model.encoder_weights": "/w/[/b].safetensors", "param/model.decoder_channels": "[red]"}
        ),
    )
    text = printed(open_run(tmp_path), width=250)
    assert "OSError: [/data/x] and [bold] cannot be read" in text
    assert "encoder_weights=/w/[/b].safetensors  decoder_channels=[red]" in text


def test_the_score_to_quote_is_that_of_test_where_there_is_one(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    val = split_score(0.8, chose=["epoch", "threshold", "winner"])
    write_card(paths, {"run": "birds", "trial": 3, "epoch": 7}, val=val)
    line = run_lines(tmp_path)[0]
    assert (line.iou, line.split) == (0.8, "val")
    write_json(paths.best / "card.json", {**run_details(open_run(tmp_path))["card"], "scores": {
        "val": val, "test": split_score(0.7, chose=[])
    }})  # fmt: skip
    line = run_lines(tmp_path)[0]
    assert (line.iou, line.split) == (0.7, "test")
    text = printed(open_run(tmp_path))
    assert "sealed model: trial 3, epoch 7" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["test", "12", "0.7000", "0.6500", "-", "0.7500", "0.7100", "0.7200", "nothing"] in lines
    assert [
        "val",
        "12",
        "0.8000",
        "0.7500",
        "-",
        "0.8500",
        "0.8100",
        "0.8200",
        "epoch,",
        "threshold,",
        "winner",
    ] in lines
    assert "threshold 0.2500 (config); auto gives 0.3750 with val IoU 0.8125" in " ".join(text.split())


def test_all_scores_of_the_quoted_split_are_shown_and_how_much_val_flatters(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    images = [ImageScore("[red]", 5, 10, 10, 1, 4, "small", "a"), ImageScore("fine", 9, 10, 10, 3, 4, "large", "b")]
    val, test = ({**summarize(images).tree(), "chose": chose} for chose in (["epoch"], []))
    write_card(paths, {"run": "birds", "trial": 3, "epoch": 7}, val=val, test=test)
    optimism = {"val": 0.8, "against": "test", "honest": 0.7, "gap": 0.1, "interval": [0.0, 0.2]}
    sealed = read_card(paths.best).but(optimism=Optimism.model_validate(optimism))
    write_json(paths.best / "card.json", sealed.tree())
    text = printed(open_run(tmp_path), width=200)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "val's own IoU is 0.8000: +0.1000 against test (95% interval +0.0000 to +0.2000)" in lines
    assert "all scores on test" in lines
    assert "images IoU Dice precision recall boundary IoU ECE" in lines
    assert "mean per image 2 0.5758 0.7000 0.7000 0.7000 0.5000 0.0000" in lines
    assert "all pixels pooled 2 0.5385 0.7000 0.7000 0.7000 0.5000 0.0000" in lines
    assert "class a 1 0.3333 0.5000 0.5000 0.5000 0.2500 0.0000" in lines
    assert "worst: [red] 0.3333 0.5000 0.5000 0.5000 0.2500 0.0000" in lines


def test_the_cross_fitted_score_is_listed_and_quoted(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    fitted = {key: value for key, value in split_score(0.75, chose=[]).items() if key not in ("chose", "iou_pooled")}
    val = {**split_score(0.8, chose=["epoch", "threshold"]), "cross_fitted": fitted}
    write_card(paths, {"run": "birds", "epoch": 7}, val=val)
    assert (run_lines(tmp_path)[0].iou, run_lines(tmp_path)[0].split) == (0.75, "val, cross-fitted")
    lines = [" ".join(line.split()) for line in printed(open_run(tmp_path)).splitlines()]
    assert "val, cross-fitted 12 0.7500 0.7000 - 0.8000 0.7600 - epoch" in lines


def test_a_single_training_run_has_no_trial(tmp_path: Path) -> None:
    paths = new_run(tmp_path, kind="train")
    update_run(paths, status="failed", error="x")
    write_card(paths, {"run": "birds", "epoch": 4}, val=split_score(0.8, chose=["epoch"]))
    text = printed(open_run(tmp_path))
    assert "sealed model: epoch 4" in text
    assert "continue with: segsearch resume birds" in text


def test_exports_are_listed_with_how_they_ended(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    targets = [
        {"target": "local", "location": "/models/[a]", "error": None},
        {"target": "yandex_disk", "location": "/models", "error": "no space [/left]"},
    ]
    write_json(paths.export, {"targets": targets})
    details = run_details(open_run(tmp_path))
    assert details["exports"] == targets
    text = printed(open_run(tmp_path))
    assert "export local:/models/[a]  ok" in text
    assert "export yandex_disk:/models  FAILED: no space [/left]" in text


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(["old", "middle", "new"]):
        paths = new_run(tmp_path, name)
        os.utime(paths.run, (age, age))
    assert [line.name for line in run_lines(tmp_path)] == ["new", "middle", "old"]
    assert run_lines(tmp_path / "absent") == []


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run 'birds'"):
        run_details(open_run(tmp_path))


def test_keys_are_shortened_where_that_is_enough() -> None:
    long = {"optimizer.lr": 1, "lr_scheduler.name": 2, "optimizer.name": 3, "loss.smooth": 4, "threshold": 5}
    assert short_names(long) == {"lr": 1, "lr_scheduler.name": 2, "optimizer.name": 3, "smooth": 4, "threshold": 5}
    assert short_names({"a.x": 1, "b.x": 2}) == {"a.x": 1, "b.x": 2}


def test_a_confirmation_and_a_ledger_follow_the_trials(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    write_trials(paths, trial(9, 0.8701), trial(0, 0.8633))
    write_json(paths.confirmation, tie())
    write_json(paths.ledger, ledger())
    write_card(paths, {"trial": 0, "epoch": 8, "seed": 2}, val=split_score(0.8, chose=["winner"]))
    details = run_details(open_run(tmp_path))
    assert (details["confirmation"], details["ledger"]) == (tie(), ledger())
    text = printed(open_run(tmp_path))
    titles = [
        "trials, best first", "the best trials again over 3 fresh seeds", "birds: from the config's own values",
        "sealed model: trial 0, trained again with seed 2, epoch 8",
    ]  # fmt: skip
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert "trials 9 and 0 are a tie" in text


def test_a_run_without_them_is_shown_as_before(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    write_trials(paths, trial(0, 0.8633))
    details = run_details(open_run(tmp_path))
    assert (details["confirmation"], details["ledger"]) == (None, None)
    assert "fresh seed" not in printed(open_run(tmp_path))


def test_a_confirmation_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    paths = new_run(tmp_path)
    paths.confirmation.write_text("{")
    with pytest.raises(RunError, match=r"confirm\.json cannot be read"):
        run_details(open_run(tmp_path))
