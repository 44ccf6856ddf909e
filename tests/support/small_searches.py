"""A search that takes seconds: its config, trials put into its study by hand, and how they ended."""

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import yaml
from rich.console import Console

from search.config.load import load_config
from search.config.tree import SearchConfig
from search.runs.journal import EventLog
from search.runs.paths import RunPaths
from search.space.parse import parse_space
from search.study.observations import PARAMS_ATTR
from search.study.recording import record_params
from search.study.storage import open_study

TREE: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 32}},
    "model": {"base_channels": 4, "depth": 2},
    "augment": {"policy": "flip"},
    "train": {"epochs": 2, "batch_size": 8},
    "space": {
        "optimizer.lr": {"loguniform": [1e-3, 1e-2]},
        "augment.policy": {"choice": ["none", "flip", "light"]},
    },
    "search": {"num_samples": 4, "scheduler": {"name": "none"}, "gate": False, "confirm": None},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
    "tracking": {"wandb": {"mode": "disabled"}},
}
QUIET = Console(stderr=True, quiet=True)


def new_config(folder: Path, **sections: Any) -> SearchConfig:
    """The config in a folder, with some of its sections replaced."""
    tree = {**TREE, **sections, "results": str(folder / "results")}
    tree["data"] = {**tree["data"], "cache_dir": str(folder / "cache")}
    tree["search"] = {"confirm": None, **tree["search"]}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_config(path)


def add_trial(paths: RunPaths, config: SearchConfig, flat: dict[str, Any], value: float) -> None:
    """Puts a trial of one epoch into a run's study, as if it had been trained.

    Args:
        paths: Of the run.
        config: Its config.
        flat: The trial's parameters.
        value: Its metric.
    """
    study = open_study(paths.storage_url, paths.name, mode="max", sampler=None)
    trial = study.ask()
    trial.set_user_attr(PARAMS_ATTR, flat)
    record_params(study, trial, parse_space(config.space, config.train_config()), flat)
    trial.report(value, step=1)
    study.tell(trial, value)
    events = EventLog(paths.events)  # as an earlier version has it: what a trial reported, and no more
    events.epoch(trial.number, 1, {"val/iou": value})
    events.close()


def states(paths: RunPaths) -> Counter[str]:
    """How many trials of a run's study are in each state."""
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))
