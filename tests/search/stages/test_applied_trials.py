"""A trial that is not what was sampled fails, and the study is told so; what the others are is in the tables."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from search.config.load import load_config
from search.runs.folder import create_run
from search.runs.tables import read_table
from search.space.search import Search
from search.stages import checking
from search.study.storage import stored_trials
from search.tune.search import run_search
from segcore.trainable import train_trial
from segcore.training import step

TREE: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 16}},
    "model": {"base_channels": 4, "depth": 2},
    "train": {"epochs": 1, "batch_size": 4},
    "space": {"optimizer.weight_decay": {"loguniform": [1e-3, 1e-1]}},
    "search": {"num_samples": 3, "scheduler": {"name": "none"}},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
    "tracking": {"wandb": {"mode": "disabled"}},
}


def trial_without_decay(spec: dict[str, Any]) -> None:
    """Trains as always, but the optimizer of trial 1 forgets its weight decay."""
    real = step.build_optimizer

    def forgetful(model: Any, config: Any) -> torch.optim.Optimizer:
        optimizer = real(model, config)
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        return optimizer

    if spec["number"] == 1:
        step.build_optimizer = forgetful
    try:
        train_trial(spec)
    finally:
        step.build_optimizer = real


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_that_is_not_what_was_sampled_fails_with_the_key_at_fault(tmp_path: Path) -> None:
    tree = json.loads(json.dumps(TREE))
    tree["data"]["cache_dir"], tree["results"] = str(tmp_path / "cache"), str(tmp_path / "results")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    config = load_config(path)
    _, cache_path = checking.prepare_data(config, Console(quiet=True))
    paths = create_run(config, "search")
    assert run_search(Search.of(config), paths, cache_path, trainable=trial_without_decay)

    assert [t.state.name for t in stored_trials(paths.storage_url, paths.name)] == ["COMPLETE", "FAIL", "COMPLETE"]
    rows = read_table(paths.trials)
    failed = rows[1]
    assert failed["error"].startswith(
        "AppliedConfigError: optimizer.weight_decay, of encoder/decay: the config asks for"
    )
    assert failed["error"].endswith("what was built has 0")
    assert (failed["epochs"], failed["applied"]) == (0, None)
    for row in (rows[0], rows[2]):
        applied = json.loads(row["applied"])
        expected = pytest.approx(row["param/optimizer.weight_decay"], rel=1e-5)
        assert applied["optimizer.weight_decay, of decoder/decay"] == expected
        assert applied["model, parameters"] == row["cost/parameters"]
