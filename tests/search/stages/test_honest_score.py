"""What a training run earns on masks that nothing can foretell, and what it says of its own score."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from data_folders import save
from rich.console import Console

from search.cli.group import main
from search.config.tree import SearchConfig
from search.runs.paths import RunPaths
from search.show.quoting import headline, quote
from search.space.search import Search
from search.stages import job
from search.stages.work import Work
from segcore.data.pairs.samples import DatasetIndex
from segcore.sealed.card import Card


def write_noise(root: Path, counts: dict[str, int], seed: int) -> None:
    """Images of one random colour each; masks of the left or of the right half, whatever the colour."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for i in range(count):
            image = rng.uniform(40, 215, 3) + rng.normal(0, 10, (16, 16, 3))
            mask = np.zeros((16, 16), np.uint8)
            side = int(rng.integers(2)) * 8
            mask[:, side : side + 8] = 255
            save(root / split / "images" / f"{i:03d}.png", image.clip(0, 255).astype(np.uint8))
            save(root / split / "gt" / f"{i:03d}.png", mask)


@pytest.fixture
def train_on_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.chdir(tmp_path)

    def train(*, epochs: int, threshold: str = "auto", **counts: int) -> dict[str, Any]:
        write_noise(tmp_path / "d", counts, seed=2)
        (tmp_path / "c.yaml").write_text(
            f"data: {{root: d, image_size: 16, cache_dir: cache}}\nmodel: {{base_channels: 8, depth: 3}}\n"
            f"augment: {{policy: none}}\noptimizer: {{lr: 1e-2}}\nthreshold: {threshold}\n"
            f"train: {{epochs: {epochs}, batch_size: 8}}\n"
        )
        result = CliRunner().invoke(main, ["train", "c.yaml"], env={**os.environ})
        assert result.exit_code == 0, result.output
        card: dict[str, Any] = json.loads(Path("results/c/best/card.json").read_text(encoding="utf-8"))
        return card

    return train


@pytest.mark.slow
def test_on_noise_val_flatters_and_test_shows_no_gain(train_on_noise: Callable[..., dict[str, Any]]) -> None:
    """All foreground has IoU 0.5 for certain; val's best epoch and threshold find more, test does not."""
    card = train_on_noise(epochs=16, train=24, val=12, test=100)
    val, test = card["scores"]["val"], card["scores"]["test"]
    assert val["iou"] > 0.53
    low, _ = test["iou_interval"]
    assert low < test["iou"]
    assert low <= 0.5
    assert test["iou"] < 0.53
    optimism = card["optimism"]
    assert optimism["gap"] == pytest.approx(val["iou"] - test["iou"])
    assert optimism["interval"][0] < optimism["gap"] < optimism["interval"][1]
    first, second = headline(Card.model_validate(card)).splitlines()
    assert f"IoU {test['iou']:.4f}" in first
    assert "100 test images, which chose nothing" in first
    assert f"{optimism['gap']:+.4f} against test" in second
    assert f"{optimism['gap']:+.4f} against test" in Path("results/c/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_a_test_split_the_threshold_is_cross_fitted(train_on_noise: Callable[..., dict[str, Any]]) -> None:
    card = train_on_noise(epochs=2, train=24, val=13)
    val = card["scores"]["val"]
    found = quote(Card.model_validate(card))
    assert found is not None
    assert (found.name, found.chose) == ("val, cross-fitted", ["epoch"])
    assert found.score.tree() == val["cross_fitted"]
    assert found.score.num_images == 13
    assert found.score.iou <= val["iou"]
    assert card["optimism"]["gap"] == pytest.approx(val["iou"] - found.score.iou)
    assert card["optimism"]["against"] == "val, cross-fitted"
    assert "they also chose epoch" in headline(Card.model_validate(card))


@pytest.mark.slow
def test_a_threshold_of_the_config_needs_no_cross_fitting(train_on_noise: Callable[..., dict[str, Any]]) -> None:
    card = train_on_noise(epochs=1, threshold="0.4", train=16, val=8)
    assert set(card["scores"]) == {"val"}
    assert "cross_fitted" not in card["scores"]["val"]
    assert "optimism" not in card
    said = "on 8 val images, which also chose epoch, so the score is optimistic about it; threshold 0.4000 (IoU stays"
    assert said in headline(Card.model_validate(card))
    low, high = card["threshold"]["flat"]
    assert low <= 0.4 <= high


def test_wandb_gets_the_score_to_quote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("search.tracking.wandb.log_run_summary", lambda to, scores, config: sent.append(scores))
    val = {"iou": 0.8, "iou_interval": [0.7, 0.9], "dice": 0.9, "num_images": 4, "chose": ["epoch"]}
    fresh = {"iou": 0.75, "iou_interval": [0.6, 0.85], "dice": 0.85, "num_images": 4, "num_seeds": 3}
    card = Card.model_validate({"scores": {"val": {**val, "fresh_seeds": fresh}}})
    work = Work(RunPaths(tmp_path), Search.of(SearchConfig(name="c")), DatasetIndex(tmp_path, "flat", (), ()), tmp_path,
                Console(quiet=True))  # fmt: skip
    job._track_summary(work, card)
    assert sent[0]["quoted"] == {
        "on": "val, fresh seeds", "iou": 0.75, "dice": 0.85, "iou_low": 0.6, "iou_high": 0.85
    }  # fmt: skip
