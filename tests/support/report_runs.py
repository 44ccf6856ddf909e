"""Runs whose files are written by hand, for the tests of the report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from search.config.tree import SearchConfig
from search.report.section import Subject
from search.runs.folder import create_run, update_run
from search.runs.paths import RunPaths, write_json
from search.runs.reading import Run
from search.runs.records import RunRecord
from search.runs.rerun_records import Confirmation, Ledger
from search.runs.rows import EpochRow
from search.runs.sealed_training import SealedTraining
from search.runs.tables import Tables, write_tables
from search.runs.trials import Trials
from search.study.lives import with_study
from search.study.storage import close_study, open_study
from segcore.objective import Objective
from segcore.scores.scoring import ImageScore, summarize
from segcore.sealed.card import Card

OPTUNA_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def row(number: int, value: float | None, state: str = "complete", **columns: Any) -> dict[str, Any]:
    return {
        "number": number, "state": state, "value": value, "best_epoch": None if value is None else 1,
        "epochs": 0 if value is None else 2, "val/iou": value, "val/dice": value, "val/threshold": 0.5, "error": None,
        **columns,
    }  # fmt: skip


def epoch(number: int, epoch: int, value: float, time: float) -> dict[str, Any]:
    return {"number": number, "epoch": epoch, "time": time, "val/iou": value}


def frozen(
    trials: Sequence[tuple[str, dict[str, Any], dict[str, Any]]], distributions: Mapping[str, BaseDistribution]
) -> list[FrozenTrial]:
    """Trials numbered from 0, each `(state, params, user_attrs)`."""
    study = optuna.create_study(direction="maximize")
    for state, params, attrs in trials:
        known = {name: distributions[name] for name in params}
        study.add_trial(
            optuna.trial.create_trial(
                state=OPTUNA_STATES[state], value=0.0 if state == "complete" else None, params=params,
                distributions=known, user_attrs=attrs,
            )
        )  # fmt: skip
    return study.get_trials()


def run_with(**parts: Any) -> Run:
    """A run that reads as told, without files: dicts as the files have them, and `frozen` and `checkpoints`.

    Args:
        parts: `config` and `record` are added to defaults; `trials` and `epochs` are rows of the tables; `card`,
            `confirmation`, `ledger`, `frozen`, `checkpoints`, and the `reports` of the training that is sealed,
            metrics by epoch, where a trial was trained again.
    """
    config = SearchConfig.model_validate({"name": "birds", **parts.get("config", {})})
    record = {"name": "birds", "kind": "search", "status": "done", "timings": {"total_s": 60.0}}
    search = config.search
    objective = Objective(search.metric, search.mode, search.second_metric)
    seal = Card.model_validate(parts["card"]) if parts.get("card") else None
    sealed = None
    if seal is not None:
        sealed = SealedTraining(seal.origin.epoch, seal.origin.trial, seal.origin.seed, parts.get("reports", {}))
    run = Run(RunPaths(Path("/nowhere/birds")))
    vars(run).update(
        record=RunRecord.model_validate({**record, **parts.get("record", {})}),
        config=config,
        config_tree=config.model_dump(mode="json"),
        objective=objective,
        card=seal,
        sealed=sealed,
        trials=Trials.from_table(parts.get("trials", []), objective),
        epochs=[_epoch_row(dict(row)) for row in parts.get("epochs", [])],
        frozen=parts.get("frozen", []),
        lives=with_study({}, parts.get("frozen", [])),
        checkpoints=parts.get("checkpoints", []),
        confirmation=Confirmation.model_validate(parts["confirmation"]) if "confirmation" in parts else None,
        ledger=Ledger.model_validate(parts["ledger"]) if "ledger" in parts else None,
    )
    return run


def subject(metric: str = "val/iou", **fields: Any) -> Subject:
    """What a section is told of the run beside its own record."""
    return Subject(metric, **fields)


def _epoch_row(row: dict[str, Any]) -> EpochRow:
    return EpochRow(row.pop("number"), row.pop("epoch"), row.pop("time", 0.0), row)


def card(trial: int | None = 0, **scores: dict[str, Any]) -> dict[str, Any]:
    origin = {"run": "birds", "epoch": 2, **({"trial": trial} if trial is not None else {})}
    return {"format": 1, "origin": origin, "threshold": {"value": 0.25, "chosen_by": "config"}, "scores": scores}


def score(iou: float, chose: list[str]) -> dict[str, Any]:
    return {
        "iou": iou, "iou_interval": [iou - 0.05, iou + 0.05], "dice": iou, "iou_pooled": iou, "num_images": 12,
        "chose": chose, "worst_images": [],
    }  # fmt: skip


def full_card() -> dict[str, Any]:
    """A card of this version without a test split: 14 classes, three object sizes and an image without any."""
    images = [
        ImageScore(f"<{i}>", i, 20, 20, i, 30, size, class_name=f"c{i:02d}", group=str(i))
        for i, size in enumerate(["small", "medium", "large", "empty"] * 3 + ["small"] * 2)
    ]  # fmt: skip
    cross_fitted = {"iou": 0.4, "iou_interval": [0.3, 0.5], "dice": 0.5, "num_images": 14, "thresholds": [0.2, 0.3]}
    val = {**summarize(images).tree(), "chose": ["epoch", "threshold"], "cross_fitted": cross_fitted}
    optimism = {"val": 0.45, "against": "val, cross-fitted", "honest": 0.4, "gap": 0.05, "interval": [0.01, 0.09]}
    return {**card(0, val=val), "optimism": optimism}


def write_curve(folder: Path, thresholds: Sequence[float], iou: Sequence[float], best: tuple[float, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "num_images": 4, "threshold": list(thresholds), "iou": list(iou),
        "best": {"iou": {"threshold": best[0], "value": best[1], "gap": 0.0}},
    }  # fmt: skip
    (folder / "curve.json").write_text(json.dumps(record))


def write_overlays(folder: Path, targets: np.ndarray, probs: np.ndarray, threshold: float = 0.5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.full((*targets.shape, 3), 100, dtype=np.uint8)
    np.savez(folder / "overlays.npz", images=images, targets=targets, probs=probs, threshold=np.float64(threshold))


def write_run(tmp_path: Path, *, kind: str = "search", name: str = "birds") -> RunPaths:
    """A finished run with three trials, one of which failed; or a single training run."""
    space = {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}} if kind == "search" else {}
    config = SearchConfig.model_validate(
        {
            "name": name, "results": str(tmp_path), "space": space, "train": {"epochs": 4},
            "data": {"root": str(tmp_path / "private folder" / "birds")},
        }
    )  # fmt: skip
    paths = create_run(config, kind)
    epochs = [epoch(0, 1, 0.5, 1.0), epoch(0, 2, 0.7, 2.0)]
    checkpoint = paths.tune / "session-1" / "trial_00000" / "checkpoint_000002"
    write_curve(checkpoint, [0.0, 0.5, 1.0], [0.2, 0.6, 0.0], (0.25, 0.7))
    targets = np.zeros((1, 4, 4), dtype=np.uint8)
    write_overlays(checkpoint, targets, targets.astype(np.float32))
    write_json_card(paths, card(0 if kind == "search" else None, val=score(0.7, ["epoch"]), test=score(0.6, [])))
    if kind == "search":
        error = "ValueError: no </script> in /home/somebody/data/x.png"
        rows = [
            row(0, 0.7, **{"best_epoch": 2, "param/optimizer.lr": 1e-3}),
            row(1, 0.4, "pruned", **{"param/optimizer.lr": 1e-2}),
            row(2, None, "failed", error=error, **{"param/optimizer.lr": 1e-4}),
        ]  # fmt: skip
        write_tables(Tables(rows, [*epochs, epoch(1, 1, 0.4, 3.0)]), paths.trials, paths.epochs)
        study = open_study(paths.storage_url, name, mode="max", sampler=None)
        distribution = optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
        for trial in rows:
            study.add_trial(
                optuna.trial.create_trial(
                    state=OPTUNA_STATES[trial["state"]], value=0.7 if trial["state"] == "complete" else None,
                    params={"optimizer.lr": trial["param/optimizer.lr"]}, distributions={"optimizer.lr": distribution},
                    user_attrs={"origin": "config" if trial["number"] == 0 else "random"},
                )
            )  # fmt: skip
        close_study(study)
    else:
        write_tables(Tables([], epochs), paths.trials, paths.epochs)
        paths.trials.unlink()
    update_run(paths, status="done")
    return paths


def write_json_card(paths: RunPaths, record: dict[str, Any]) -> None:
    paths.best.mkdir()
    write_json(paths.best / "card.json", record)
