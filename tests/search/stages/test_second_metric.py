"""A search for two aims from end to end: what the study keeps of a cost, and real searches with a front."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from click.testing import CliRunner
from commands import start_segsearch
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from specs import new_spec

from search.cli.group import main
from search.config.load import load_config
from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.events import Epoch
from search.runs.folder import create_run
from search.runs.journal import EventLog, epochs_by_trial, read_events
from search.runs.lives import lives_of
from search.runs.paths import RunPaths
from search.runs.reading import Run
from search.runs.tables import build_tables, read_table
from search.sampling.proposals import build_proposer
from search.sampling.proposer import Proposer
from search.schedulers.build import build_promotions
from search.schedulers.setting import Setting
from search.show.run import run_details
from search.space.parse import parse_space
from search.space.search import Search
from search.stages import job
from search.stages.picking import seal_trial
from search.study.lives import with_study
from search.study.mirror import catch_up
from search.study.observations import COST_ATTR, costs_of, observations
from search.study.storage import open_study
from search.tune.ray_scheduler import build_scheduler
from search.tune.retries import Retries
from search.tune.searcher import StudySearcher
from segcore.config import ModelConfig, TrainConfig
from segcore.models.build import build_model
from segcore.objective import Objective
from segcore.sealed.bundle import load_bundle
from segcore.sealed.card import read_card
from segcore.spec import TrialSpec
from segcore.training.cost import num_parameters

pytestmark = pytest.mark.slow

PARAMETERS, LATENCY = "cost/parameters", "cost/latency_ms"
QUIET = Console(stderr=True, quiet=True)
BASE = TrainConfig()
RAW_SPACE: dict[str, Any] = {
    "model.base_channels": {"choice": [1, 4, 16]}, "optimizer.lr": {"loguniform": [8e-3, 1.2e-2]}
}  # fmt: skip
OBJECTIVE = Objective("val/iou", second=PARAMETERS)
SPACE = parse_space(RAW_SPACE, BASE)


def new_config(folder: Path, **search: Any) -> Path:
    settings = {
        "num_samples": 7, "second_metric": PARAMETERS, "gate": False, "confirm": None,
        "scheduler": {"name": "asha", "grace_period": 1, "reduction_factor": 2}, **search,
    }  # fmt: skip
    tree = {
        "data": {
            "root": "synthetic", "image_size": 32, "synthetic": {"num_images": 64}, "cache_dir": str(folder / "cache"),
        },
        "model": {"depth": 2},
        "augment": {"policy": "flip"},
        "train": {"epochs": 4, "batch_size": 8},
        "space": RAW_SPACE,
        "search": settings,
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
        "tracking": {"wandb": {"mode": "disabled"}},
        "results": str(folder / "results"),
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def journal_of(study: optuna.Study) -> EventLog:
    return EventLog(Path(study._storage._backend.engine.url.database).with_name("events.jsonl"))  # type: ignore


def unfinished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    events = journal_of(study)
    return catch_up(study, lives_of(read_events(events.path)), OBJECTIVE, events)


def new_searcher(
    study: optuna.Study, proposer: Proposer | None = None, objective: Objective = OBJECTIVE, **options: Any
) -> StudySearcher:
    config = SearchConfig.model_validate({"name": "tiny", "search": {"num_samples": 9}})
    return StudySearcher(
        study, Search(config, BASE, SPACE, objective), new_spec,
        proposer or Proposer(SPACE, "random", seed=0, num_samples=9, max_epochs=5, objective=OBJECTIVE),
        journal_of(study), **options,
    )  # fmt: skip


def result(epoch: int, value: float, cost: float) -> dict[str, Any]:
    return {"number": 0, "epoch": epoch, "val/iou": value, PARAMETERS: cost, "finished": False}


def new_study(folder: Path) -> optuna.Study:
    return open_study(f"sqlite:///{folder / 'study.db'}", "tiny", mode="max", sampler=None)


def test_a_trials_cost_is_in_the_study_with_its_first_report_and_stays(tmp_path: Path) -> None:
    searcher = new_searcher(new_study(tmp_path))
    for trial_id in ("a", "b"):
        searcher.suggest(trial_id)
    searcher.on_trial_result("a", result(1, 0.5, 120))
    searcher.flush()
    assert costs_of(new_study(tmp_path)) == {0: 120.0}
    searcher.on_trial_result("a", result(2, 0.6, 999))
    searcher.on_trial_complete("a", result(3, 0.7, 999))
    assert [(o.number, o.cost) for o in observations(new_study(tmp_path))] == [(0, 120.0), (1, None)]

    study = new_study(tmp_path)
    (requeued,) = unfinished(study)
    again = new_searcher(study, retries=Retries([requeued]))
    spec = TrialSpec.from_ray(again.suggest("c"))  # type: ignore[arg-type]
    assert (spec.number, spec.strikes, spec.reached) == (1, 0, 0)
    again.on_trial_result("c", result(1, 0.4, 30))
    again.flush()
    assert costs_of(new_study(tmp_path)) == {0: 120.0, 1: 30.0}


def test_a_trial_that_goes_on_in_another_session_keeps_its_cost(tmp_path: Path) -> None:
    searcher = new_searcher(new_study(tmp_path))
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.5, 120))
    searcher.flush()
    study = new_study(tmp_path)
    requeued = unfinished(study)
    again = new_searcher(study, retries=Retries(requeued))
    again.suggest("b")
    again.on_trial_result("b", result(2, 0.6, 999))
    assert costs_of(new_study(tmp_path)) == {0: 120.0}


def test_the_proposer_is_told_a_cost_before_the_value(tmp_path: Path) -> None:
    proposer = Proposer(SPACE, "random", seed=0, num_samples=9, max_epochs=5, objective=OBJECTIVE)
    searcher = new_searcher(new_study(tmp_path), proposer)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.5, 120))
    assert (proposer.trials[0].cost, proposer.trials[0].values) == (120, {1: 0.5})


def test_the_scheduler_hands_a_reports_cost_to_the_rungs(tmp_path: Path) -> None:
    """Of four that come to the first rung, two may go on: by value 0 and 1, by value and cost 0 and 3."""
    options = load_config(new_config(tmp_path)).search.scheduler
    reports = {0: (0.9, 1e6), 1: (0.8, 1e6), 2: (0.7, 1e6), 3: (0.6, 1e3)}
    called = {}
    for objective in (Objective("val/iou"), OBJECTIVE):
        promotions = build_promotions(options, Setting(objective, 4))
        assert promotions is not None
        scheduler = build_scheduler(options, Setting(objective, 4, promotions=promotions))
        passed = set()
        for number, (value, cost) in reports.items():
            trial = SimpleNamespace(config={"number": number})
            if scheduler.on_trial_result(None, trial, result(1, value, cost)) == TrialScheduler.CONTINUE:
                passed.add(number)
        while (number_called := promotions.next(is_last_call=False)) is not None:
            passed.add(number_called)
        called[objective.second] = passed
    assert called == {None: {0, 1}, PARAMETERS: {0, 3}}


def test_a_search_without_a_second_metric_keeps_no_cost(tmp_path: Path) -> None:
    searcher = new_searcher(new_study(tmp_path), objective=Objective("val/iou"))
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.5, 120))
    assert costs_of(new_study(tmp_path)) == {}


def test_a_cost_that_only_the_journal_knows_is_told_after_a_kill(tmp_path: Path) -> None:
    searcher = new_searcher(new_study(tmp_path))
    for trial_id in ("a", "b", "c"):
        searcher.suggest(trial_id)
    searcher.on_trial_result("b", result(1, 0.4, 70))
    log = EventLog(tmp_path / "events.jsonl")
    for number, epoch, cost in ((0, 1, 120), (0, 2, 121), (1, 1, 70), (1, 2, 71)):
        log.epoch(number, epoch, {"val/iou": 0.5, PARAMETERS: cost})
    events = read_events(tmp_path / "events.jsonl")
    study = new_study(tmp_path)
    requeued = unfinished(study)
    assert costs_of(study) == {0: 120.0, 1: 70.0}  # each of its first epoch
    assert [trial.user_attrs.get(COST_ATTR) for trial in requeued] == [120.0, 70.0, None]
    lives = with_study(lives_of(events), study.trials)
    rows = build_tables(lives.values(), OBJECTIVE).trials
    assert [(row[PARAMETERS], row["pareto"]) for row in rows] == [(120.0, False), (70.0, True), (None, False)]


def test_a_resumed_searchs_proposer_knows_the_costs(tmp_path: Path) -> None:
    config = load_config(new_config(tmp_path))
    study = new_study(tmp_path)
    searcher = new_searcher(study)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.5, 120))
    searcher.on_trial_complete("a", result(2, 0.6, 120))
    proposer = build_proposer(Search.of(config), study)
    assert {number: past.cost for number, past in proposer.trials.items()} == {0: 120.0}


def test_optuna_still_takes_no_reports_for_two_objectives() -> None:
    """Why the cost is no objective of the study; when this fails, it could be one."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(NotImplementedError, match="multi-objective"):
        study.ask().report(0.5, step=1)


def parameters_of(base_channels: int) -> int:
    return num_parameters(build_model(ModelConfig(base_channels=base_channels, depth=2)))


def beaten(row: dict[str, Any], rows: list[dict[str, Any]], cost: str) -> bool:
    return any(
        other["value"] >= row["value"]
        and other[cost] <= row[cost]
        and (other["value"], other[cost]) != (row["value"], row[cost])
        for other in rows
    )


def check_front(paths: RunPaths, cost: str) -> list[int]:
    """Compares what the table and `show` say with a brute force over the table; returns the front."""
    rows = read_table(paths.trials)
    front = [row["number"] for row in rows if not beaten(row, rows, cost)]
    assert [row["number"] for row in rows if row["pareto"]] == front
    details = run_details(Run(paths))
    shown = details["front"]
    by_number = {row["number"]: row for row in rows}
    assert sorted(point["trial"] for point in shown) == front
    assert [point["value"] for point in shown] == sorted((by_number[n]["value"] for n in front), reverse=True)
    for point in shown:
        row = by_number[point["trial"]]
        assert (point["value"], point["cost"]) == (row["value"], row[cost])
        assert point["settings"]["model.base_channels"] == row["param/model.base_channels"]
    assert read_card(paths.best).origin.trial == max(rows, key=lambda row: row["value"])["number"]
    return front


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_search_over_the_width_finds_a_front_and_any_point_of_it_can_be_sealed(tmp_path: Path) -> None:
    paths = job.run(load_config(new_config(tmp_path)), QUIET).paths
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    costs = costs_of(study)
    assert costs == {t.number: parameters_of(t.user_attrs["params"]["model.base_channels"]) for t in study.trials}
    assert {row[PARAMETERS] for row in read_table(paths.epochs)} == set(costs.values())
    front = check_front(paths, PARAMETERS)
    assert len(front) >= 2

    # Another session: costs stay, and the front is that of all trials.
    job.extend(paths, 3, [], QUIET)
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    after = costs_of(study)
    assert len(after) == 10
    assert {number: after[number] for number in costs} == costs
    front = check_front(paths, PARAMETERS)

    best = read_card(paths.best)
    cheapest = min(front, key=lambda number: after[number])
    assert cheapest != best.origin.trial
    results = ["--results", str(paths.root.parent)]
    shown = CliRunner().invoke(main, ["show", paths.name, *results]).output
    assert f"no trial beats these in val/iou and {PARAMETERS}" in shown
    assert f"segsearch seal {paths.name} --trial N -o FOLDER" in shown
    assert f"{after[cheapest]:,.0f}" in shown
    record = json.loads(CliRunner().invoke(main, ["show", paths.name, "--json", *results]).stdout)
    assert sorted(point["trial"] for point in record["front"]) == sorted(front)

    folder = tmp_path / "small"
    done = CliRunner().invoke(main, ["seal", paths.name, "--trial", str(cheapest), "-o", str(folder), *results])
    assert done.exit_code == 0, done.output
    bundle = load_bundle(folder)
    assert num_parameters(bundle.model) == after[cheapest]
    assert bundle.card.origin.trial == cheapest
    row = next(row for row in read_table(paths.trials) if row["number"] == cheapest)
    assert bundle.card.origin.epoch == row["best_epoch"]
    assert bundle.card.scores["val"].iou == pytest.approx(row["value"], abs=2e-3)
    assert read_card(paths.best) == best
    with pytest.raises(RunError, match="something is there already"):
        seal_trial(paths, cheapest, folder, QUIET)
    with pytest.raises(RunError, match=r"no model of a trial 99; valid: 0, 1, 2"):
        seal_trial(paths, 99, tmp_path / "none", QUIET)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["search", "train"])
def test_a_run_without_a_model_has_nothing_to_seal(tmp_path: Path, kind: str) -> None:
    config = SearchConfig.model_validate({"name": "birds", "results": str(tmp_path)})
    paths = create_run(config, kind)
    message = "has no model of a trial 0; valid: none yet" if kind == "search" else "is one training run, not a search"
    with pytest.raises(RunError, match=message):
        seal_trial(paths, 0, tmp_path / "out", QUIET)
    done = CliRunner().invoke(main, ["seal", "birds", "--trial", "0", "-o", "out", "--results", str(tmp_path)])
    assert done.exit_code == 2


@pytest.mark.slow
def test_latencies_outlive_a_kill(tmp_path: Path) -> None:
    """Measured anew in each attempt; what a trial is judged by stays what it was first."""
    config = new_config(tmp_path, second_metric=LATENCY, num_samples=6)
    paths = RunPaths(tmp_path / "results" / "tiny")
    process = start_segsearch(["run", str(config)], tmp_path)
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        if sum(map(len, epochs_by_trial(read_events(paths.events)).values())) >= 6:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    before = costs_of(optuna.load_study(study_name=paths.name, storage=paths.storage_url))
    assert before

    finished = start_segsearch(["resume", "tiny", "--results", str(tmp_path / "results")], tmp_path)
    output = finished.communicate(timeout=300)[0]
    assert finished.returncode == 0, output
    after = costs_of(optuna.load_study(study_name=paths.name, storage=paths.storage_url))
    assert set(after) == set(range(6))
    assert {number: after[number] for number in before} == before
    assert all(0.01 < cost < 10_000 for cost in after.values())
    reported = [
        event.metrics[LATENCY] for event in read_events(paths.events) if isinstance(event, Epoch)
    ]  # fmt: skip
    assert set(after.values()) <= set(reported)
    check_front(paths, LATENCY)
