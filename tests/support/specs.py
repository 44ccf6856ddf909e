"""Specs of trials for the tests of whoever makes or reads them; nothing at their paths exists."""

from pathlib import Path
from typing import Any

from segcore.config import TrainConfig
from segcore.spec import TrialSpec


def new_spec(number: int = 0, train: TrainConfig | None = None, **fields: Any) -> TrialSpec:
    """A trial's spec; also what a searcher takes to make one from a number and a config."""
    return TrialSpec(number, train or TrainConfig(), Path("cache.arrow"), "val/iou", Path("trial"), **fields)
