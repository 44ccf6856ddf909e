"""The score to quote of confirmed settings, worked out by hand from the pixels of three images."""

from pathlib import Path

import numpy as np
import pytest

from search.reruns import fresh
from search.runs.paths import RunPaths
from search.runs.rerun_records import Confirmation, ConfirmedTrial
from segcore.config import TrainConfig
from segcore.data.pairs.samples import Sample
from segcore.scores.image_counts import ImageCounts

VAL = [Sample(name, Path(name), Path(name), "val", "", name) for name in "abcd"]
FIXED = TrainConfig.model_validate({"threshold": 0.5})


def counts(*right: int) -> ImageCounts:
    """Images of 10 positive pixels, of which some and nothing else are predicted: IoU is their share."""
    column = np.array(right, dtype=np.int64)[:, None]
    return ImageCounts(np.array([0.5]), column, column, np.full(len(right), 10))


def confirmation(*reruns: list[tuple[int, int]]) -> Confirmation:
    rows = [
        ConfirmedTrial(
            trial=number, searched=0.9, mean=0.5, interval=None, values=[(seed, 0.5) for seed, _ in pairs], failed=[],
            reruns=pairs, parameters=1.0, latency_ms=None, settings={}, difference=None,
        )
        for number, pairs in enumerate(reruns)
    ]  # fmt: skip
    return Confirmation(
        metric="val/dice", mode="max", seeds=[1, 2], num_images=4, confidence=0.95, seed_sd=0.01, seed_df=2,
        candidates=rows, tied=[0], winner=0, reason="it is the best",
    )  # fmt: skip


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], ImageCounts]:
    """Counts by the name of the folder and the number of the training; others have none."""
    found: dict[tuple[str, int], ImageCounts] = {}
    monkeypatch.setattr(fresh, "images_of", lambda paths, number: found.get((paths.root.name, number)))
    return found


def test_the_mean_over_fresh_seeds_is_quoted_and_the_searchs_claim_set_against_it(
    trained: dict[tuple[str, int], ImageCounts], tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "run")
    trained[paths.reruns.root.name, 0] = counts(8, 6, 7, 8)
    trained[paths.reruns.root.name, 1] = counts(7, 6, 7, 7)
    trained[paths.reruns.root.name, 2] = counts(5, 5, 5, 5)
    found = fresh.fresh_score(paths, confirmation([(1, 0), (2, 1)], [(1, 2)]), {0: FIXED, 1: FIXED}, VAL, claimed=0.8)
    assert found is not None
    assert found.score.iou == pytest.approx(0.70)  # of 0.725 and 0.675
    assert found.score.dice == pytest.approx(
        np.mean([16 / 18, 12 / 16, 14 / 17, 16 / 18, 14 / 17, 12 / 16, 14 / 17, 14 / 17])
    )
    assert (found.score.num_seeds, found.score.num_images) == (2, 4)
    low, high = found.score.iou_interval
    assert low < 0.675
    assert high > 0.725
    assert found.gap_interval == pytest.approx((0.8 - high, 0.8 - low))  # the search's own images are gone

    trained[paths.root.name, 0] = counts(9, 7, 8, 9)
    again = fresh.fresh_score(paths, confirmation([(1, 0), (2, 1)], [(1, 2)]), {0: FIXED, 1: FIXED}, VAL, claimed=0.8)
    assert again is not None
    assert again.claim.images == pytest.approx(np.array([0.9, 0.7, 0.8, 0.9]))
    middle = sum(again.gap_interval) / 2
    assert middle == pytest.approx(0.8 - 0.7)  # around the claim, not around what the counts give for it


def test_without_a_training_that_can_be_read_there_is_none(
    trained: dict[tuple[str, int], ImageCounts], tmp_path: Path
) -> None:
    assert fresh.fresh_score(RunPaths(tmp_path), confirmation([(1, 0)]), {0: FIXED}, VAL, claimed=0.8) is None
