"""Which of the candidates wins: the best mean, unless a cheaper one cannot be told from it."""

from dataclasses import replace

import numpy as np
import pytest

from search.reruns.decision import Candidate, decide
from segcore.objective import Objective

SEEDS = [1, 2, 3]
GROUPS = [f"image{i}" for i in range(40)]


def candidate(
    trial: int, means: list[float], *, parameters: int = 1000, latency: float | None = None, spread: float = 0.05
) -> Candidate:
    """Three trainings, each with its mean over 40 images, whose own difficulty is the same for everyone."""
    images = np.linspace(-spread, spread, len(GROUPS))
    scores = np.array([[mean] for mean in means]) + images
    return Candidate(
        trial, searched=max(means) + 0.02, values=dict(zip(SEEDS, means, strict=False)), scores=scores,
        costs={"cost/parameters": parameters, "cost/latency_ms": latency}, reruns={seed: seed for seed in SEEDS},
    )  # fmt: skip


def decided(*candidates: Candidate, **changes: object) -> dict[str, object]:
    options: dict[str, object] = {"objective": Objective("val/iou"), "seeds": SEEDS}
    return decide(candidates, GROUPS, **{**options, **changes}).tree()  # type: ignore[arg-type]


def test_a_candidate_that_is_clearly_better_wins_however_large() -> None:
    record = decided(
        candidate(4, [0.70, 0.701, 0.699], parameters=10), candidate(7, [0.80, 0.801, 0.799], parameters=9999)
    )
    assert record["winner"] == 7
    assert record["tied"] == [7]
    assert [row["trial"] for row in record["candidates"]] == [7, 4]
    difference = record["candidates"][1]["difference"]
    assert difference["value"] == pytest.approx(-0.1)
    assert difference["interval"][1] < 0
    assert "by more than the noise" in record["reason"]


def test_of_a_tie_the_smaller_wins_though_its_mean_is_lower() -> None:
    record = decided(
        candidate(4, [0.79, 0.80, 0.805], parameters=10), candidate(7, [0.80, 0.81, 0.79], parameters=9999)
    )
    assert record["winner"] == 4
    assert record["tied"] == [7, 4]
    assert record["reason"] == "trials 4 and 7 are a tie; 4 is the smaller (10 parameters; 7: 9,999)"


def test_the_faster_one_wins_a_tie_where_latency_is_kept_low() -> None:
    record = decided(
        candidate(4, [0.79, 0.80, 0.805], parameters=10, latency=9.0),
        candidate(7, [0.80, 0.81, 0.79], parameters=9999, latency=2.5),
        objective=Objective("val/iou", second="cost/latency_ms"),
    )
    assert record["winner"] == 7
    assert "7 is the faster (2.50 ms an image" in str(record["reason"])


def test_two_identical_configs_are_a_tie_with_the_same_seeds_and_with_others() -> None:
    same = decided(candidate(4, [0.80, 0.79, 0.81]), candidate(7, [0.80, 0.79, 0.81]))
    assert same["tied"] == [4, 7]
    assert same["candidates"][1]["difference"] == {"value": 0.0, "interval": [0.0, 0.0], "tied": True}
    assert same["winner"] == 4
    assert "none is cheaper" in str(same["reason"])

    rng = np.random.default_rng(0)
    told_apart = 0
    for _ in range(60):
        draws = rng.normal(0.8, 0.01, (2, 3)).tolist()
        told_apart += len(decided(candidate(4, draws[0]), candidate(7, draws[1]))["tied"]) == 1  # type: ignore[arg-type]
    assert told_apart <= 60 * 0.10  # of intervals of 95%


def test_ties_are_with_the_first_so_that_the_last_may_be_left_out() -> None:
    record = decided(
        candidate(1, [0.80, 0.802, 0.798]),
        candidate(2, [0.797, 0.80, 0.801], parameters=900),
        candidate(3, [0.6, 0.601, 0.599], parameters=1),
    )
    assert record["tied"] == [1, 2]
    assert record["winner"] == 2
    many = decided(*(candidate(n, [0.80, 0.802, 0.798], parameters=100 * n) for n in (3, 1, 2)))
    assert many["reason"] == "trials 1, 2 and 3 are a tie; 1 is the smallest (100 parameters; 2 or 3: 200 at least)"


def test_a_smaller_loss_is_better_and_has_no_images() -> None:
    candidates = [
        Candidate(n, 0.3, {}, np.array([[loss + 0.001], [loss - 0.001]]), {"cost/parameters": 5})
        for n, loss in ((1, 0.40), (2, 0.31))
    ]
    record = decide(candidates, None, objective=Objective("val/loss", "min"), seeds=[1, 2]).tree()
    assert record["winner"] == 2
    assert record["num_images"] is None
    assert record["candidates"][1]["difference"]["value"] == pytest.approx(0.09)
    assert record["tied"] == [2]


def test_a_cost_that_is_not_known_is_the_highest() -> None:
    unknown = Candidate(1, 0.8, {}, candidate(1, [0.80, 0.81, 0.79]).scores)
    assert decided(unknown, candidate(2, [0.79, 0.80, 0.805]))["winner"] == 2


@pytest.mark.parametrize(
    ("failed", "top_k", "why"),
    [
        ([], 1, "search.confirm.top_k is 1"),
        ([], 3, "no other trial came to a value"),
        ([7], 3, "every training of trial 7 failed"),
        ([7, 2], 3, "every training of trials 2 and 7 failed"),
    ],
)
def test_why_a_candidate_has_no_rival(failed: list[int], top_k: int, why: str) -> None:
    others = [replace(candidate(number, [0.5]), scores=np.empty((0, 40)), values={}) for number in failed]
    record = decided(candidate(4, [0.79, 0.80]), *others, top_k=top_k)
    assert record["reason"] == f"trial 4 had no rival, as {why}"


def test_one_seed_alone_says_nothing() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        decided(candidate(4, [0.8]), candidate(7, [0.7]))
