import pytest

from segcore.scores.flatness import flat_range

THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("scores", "chosen", "found"),
    [
        ([0.5, 0.696, 0.698, 0.70, 0.695, 0.6], 0.4, (0.2, 0.5)),
        ([0.70, 0.70, 0.70, 0.70, 0.70, 0.70], 0.3, (0.1, 0.6)),
        ([0.1, 0.2, 0.3, 0.7, 0.3, 0.699], 0.4, (0.4, 0.4)),  # what is as good beyond a valley does not count
        ([0.5, 0.55, 0.6, 0.604, 0.61, 0.7], 0.31, (0.3, 0.4)),  # a threshold of the config, on a slope
    ],
)
def test_the_range_in_which_the_score_stays(scores: list[float], chosen: float, found: tuple[float, float]) -> None:
    assert flat_range(THRESHOLDS, scores, chosen) == pytest.approx(found)
