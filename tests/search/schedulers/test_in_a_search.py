"""One real search for each scheduler that `tune/test_search.py` has none of: real Ray, real Optuna, real training."""

from collections import Counter
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from search.config.load import load_config
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.runs.tables import read_table
from search.schedulers.forks import PARENT_ATTR
from search.stages import job
from segcore.sealed.bundle import load_bundle

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

EPOCHS = 4


def search(folder: Path, scheduler: dict[str, object], num_samples: int) -> tuple[RunPaths, list[FrozenTrial]]:
    tree = {
        "data": {
            "root": "synthetic", "image_size": 32, "synthetic": {"num_images": 32}, "cache_dir": str(folder / "cache"),
        },
        "model": {"base_channels": 4, "depth": 2},
        "augment": {"policy": "flip"},
        "train": {"epochs": EPOCHS, "batch_size": 8},
        "space": {"optimizer.lr": {"loguniform": [1e-5, 3e-2]}, "loss.dice": {"uniform": [0.0, 1.0]}},
        "search": {
            "num_samples": num_samples, "sampler": "random", "seed": 2, "scheduler": scheduler, "gate": False,
            "confirm": None,
        },
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
        "tracking": {"wandb": {"mode": "disabled"}},
        "results": str(folder / "results"),
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    outcome = job.run(load_config(path), Console(stderr=True, quiet=True))
    assert outcome.exit_code == 0
    study = optuna.load_study(study_name=outcome.paths.name, storage=outcome.paths.storage_url)
    trials = study.get_trials(deepcopy=False)
    states = Counter(trial.state for trial in trials)
    assert states.total() == states[TrialState.COMPLETE] + states[TrialState.PRUNED] == num_samples
    if scheduler["name"] != "pbt":  # where fewer run side by side than the population has, all may end unjudged
        assert states[TrialState.PRUNED] > 0
    assert states[TrialState.COMPLETE] > 0
    journal = epochs_by_trial(read_events(outcome.paths.events))
    for trial in trials:
        assert trial.intermediate_values == {e: row.metrics["val/iou"] for e, row in journal[trial.number].items()}
        assert (trial.state == TrialState.COMPLETE) == (EPOCHS in trial.intermediate_values)
    return outcome.paths, trials


@pytest.mark.parametrize(
    "scheduler",
    [
        {"name": "hyperband", "grace_period": 1, "reduction_factor": 2, "brackets": 2},
        {"name": "median", "grace_period": 1, "min_samples": 2},
    ],
    ids=lambda scheduler: scheduler["name"],
)
def test_poor_trials_are_stopped_and_all_come_to_their_end(scheduler: dict[str, object], tmp_path: Path) -> None:
    search(tmp_path, scheduler, num_samples=8)


def test_a_population_trains_with_forks_of_its_best(tmp_path: Path) -> None:
    scheduler = {"name": "pbt", "population": 4, "perturbation_interval": 1, "quantile": 0.5}
    paths, trials = search(tmp_path, scheduler, num_samples=9)
    epochs = read_table(paths.epochs)
    forks = [trial for trial in trials if PARENT_ATTR in trial.user_attrs]
    assert [trial.number for trial in forks] == [4, 5, 6, 7, 8]
    for fork in forks:
        number, epoch = fork.user_attrs[PARENT_ATTR]
        assert min(fork.intermediate_values) == epoch + 1
        assert epoch in trials[number].intermediate_values
        assert fork.params != trials[number].params
        # The settings that the study names are those that ran: with a cosine, the learning rates of two runs are in
        # the ratio of their peaks at every epoch.
        lrs = {row["epoch"]: row["lr"] for row in epochs if row["number"] == fork.number}
        parents = {row["epoch"]: row["lr"] for row in epochs if row["number"] == number}
        peak = fork.params["optimizer.lr"] / trials[number].params["optimizer.lr"]
        for epoch in lrs.keys() & parents.keys():
            assert lrs[epoch] / parents[epoch] == pytest.approx(peak)
    card = load_bundle(paths.best).card
    best = max(trials, key=lambda trial: max(trial.intermediate_values.values()))
    assert card.origin.trial == best.number
    assert card.config["optimizer"]["lr"] == best.params["optimizer.lr"]
    assert card.scores["val"].iou == pytest.approx(max(best.intermediate_values.values()), abs=2e-3)
