"""What we use of Optuna's insides is there, and does what we use it for; each message names what breaks without it."""

import inspect
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from places import ROOT

from search.study.optuna_internals import fixed_params, handle_of, set_attr, set_param, trial_of, write_reports
from search.study.storage import open_study


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return open_study(f"sqlite:///{tmp_path / 'study.db'}", "birds", mode="max", sampler=None)


@pytest.mark.parametrize(
    ("owner", "name", "feature"),
    [
        (RDBStorage, "get_trial_id_from_study_id_trial_number", "every write to a trial by its number"),
        (RDBStorage, "get_trial", "looking at one trial without reading all"),
        (RDBStorage, "set_trial_user_attr", "a trial's cost, and Ray's ids of its attempts"),
        (RDBStorage, "set_trial_param", "recording what a trial runs with"),
        (RDBStorage, "set_trial_intermediate_value", "reports to a study in memory"),
        (RDBStorage, "remove_session", "folding the write-ahead log into study.db"),
        (models.TrialIntermediateValueModel, "intermediate_value_to_stored_repr", "reports in batches"),
        (optuna.Study, "add_trial", "building study.db anew from the journal"),
        (optuna.trial.Trial, "set_constraint", "telling samplers of trials that ran out of memory"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_what_we_use_is_there(owner: type, name: str, feature: str) -> None:
    assert hasattr(owner, name), f"optuna {optuna.__version__} has no {owner.__name__}.{name}; we need it for {feature}"


def test_a_study_knows_its_storage_and_its_id(study: optuna.Study) -> None:
    for name in ("_storage", "_study_id"):
        assert hasattr(study, name), f"optuna {optuna.__version__}: no Study.{name}; every write by number needs it"
    backend = getattr(study._storage, "_backend", study._storage)
    assert isinstance(backend, RDBStorage), "reports in batches need the engine behind a study's cache"
    assert hasattr(backend, "engine"), "reports in batches, and folding the log, need the storage's engine"
    assert "engine_kwargs" in inspect.signature(RDBStorage).parameters, "the write-ahead log is asked for through it"


def test_a_table_of_reports_has_the_columns_that_a_batch_writes() -> None:
    columns = set(models.TrialIntermediateValueModel.__table__.columns.keys())
    wanted = {"trial_id", "step", "intermediate_value", "intermediate_value_type"}
    assert wanted <= columns, f"reports in batches write {wanted}, and the table has {columns}"


def test_a_handle_is_what_ask_returns(study: optuna.Study) -> None:
    asked = study.ask()
    handle = handle_of(study, asked.number)
    handle.set_user_attr("origin", "config")
    set_attr(study, 0, "cost", 2.5)
    set_param(study, 0, "lr", 0.1, FloatDistribution(0.0, 1.0))
    write_reports(study, {(0, 1): 0.5})
    trial = trial_of(study, 0)
    assert (trial.user_attrs, trial.params) == ({"origin": "config", "cost": 2.5}, {"lr": 0.1})
    assert trial.intermediate_values == {1: 0.5}
    assert study.tell(0, 0.5).value == 0.5


def test_an_enqueued_trial_says_what_with(study: optuna.Study) -> None:
    study.enqueue_trial({"lr": 0.1})
    study.ask()
    study.ask()
    found = [fixed_params(trial) for trial in study.trials]
    assert found == [{"lr": 0.1}, None], "the key under which Optuna keeps enqueued parameters is another one now"


def test_nobody_else_uses_optunas_insides() -> None:
    """So that a change of Optuna is a change of one file."""
    insides = ("study._storage", "._study_id", "._trial_id", "optuna.storages._", "_cached_frozen_trial")
    files = [path for path in (ROOT / "search").rglob("*.py") if path.name != "optuna_internals.py"]
    assert files
    found = {path.name: name for path in files for name in insides if name in path.read_text(encoding="utf-8")}
    assert found == {}
