"""How often the score's interval and the gap's hold the truth, and what scores a search earns on masks of noise.

Everything is drawn from known laws, so that the truth is known; nothing is trained. IoUs of images are taken to be
like those of a good model (Beta(8, 2)), or of a good model that fails on one image in ten (`with failures`), or alike
within films of four images (`in films`). A search is 20 models and what chose among them is val's mean.

After a search the gap's interval holds the mean gap more often than asked for: the best of many means varies less than
one mean does, and the interval does not count on that.

Masks of noise are the left or the right half of an image at random. A model is no more than a random number for each
half of each image; all foreground scores 0.5, and nothing does better in the long run. The search takes the best of 20
models, each at its best epoch of 5 and at its best threshold, on 24 images of val. Cross-fitting undoes the choice of
the threshold alone.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from bench_page import table, write_page

from segcore.intervals import difference_interval, mean_interval

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
CONFIDENCE = 0.9
DRAWS, NOISE_DRAWS, RESAMPLED = 500, 500, 1000
FILM = 4
NUM_MODELS, NUM_EPOCHS, NUM_VAL = 20, 5, 24
NORMAL = NormalDist()


def good(rng: np.random.Generator, n: int) -> Array:
    """IoUs of a good model; their mean is 0.8."""
    return rng.beta(8, 2, n)


def with_failures(rng: np.random.Generator, n: int) -> Array:
    """IoUs of a model that fails on one image in ten; their mean is 0.9 * 20 / 23 + 0.1 * 0.2."""
    return np.where(rng.random(n) < 0.1, rng.beta(1, 4, n), rng.beta(20, 3, n))


def in_films(rng: np.random.Generator, n: int) -> Array:
    """IoUs that are alike in each film of four images; their mean is 0.8."""
    film = np.repeat(rng.uniform(0.65, 0.95, n // FILM), FILM)
    return np.asarray((film + rng.normal(0, 0.05, n)).clip(0, 1))


LAWS: dict[str, tuple[Callable[[np.random.Generator, int], Array], float]] = {
    "good": (good, 0.8), "with failures": (with_failures, 0.9 * 20 / 23 + 0.1 * 0.2), "in films": (in_films, 0.8),
}  # fmt: skip


def percentile(values: Array, seed: int) -> Interval:
    """The plain bootstrap interval, for comparison."""
    means = np.random.default_rng(seed).choice(values, (RESAMPLED, len(values))).mean(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bca(values: Array, seed: int) -> Interval:
    """The bias-corrected and accelerated interval (Efron, JASA 82, 1987), for comparison."""
    means = np.random.default_rng(seed).choice(values, (RESAMPLED, len(values))).mean(1)
    bias = NORMAL.inv_cdf(float(np.clip((means < values.mean()).mean(), 1e-4, 1 - 1e-4)))
    left_out = values.mean() - (values.sum() - values) / (len(values) - 1)
    acceleration = (left_out**3).sum() / (6 * (left_out**2).sum() ** 1.5 + 1e-300)
    levels = []
    for tail in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        z = bias + NORMAL.inv_cdf(tail)
        levels.append(NORMAL.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(means, levels)
    return float(low), float(high)


def films(n: int) -> list[str]:
    """The film of each image."""
    return [str(i // FILM) for i in range(n)]


def mean_coverage(law: str, n: int, draws: int) -> dict[str, float]:
    """How often each method's interval of the mean of `n` images holds the law's mean."""
    draw, truth = LAWS[law]
    rng, hits = np.random.default_rng(n), dict.fromkeys(("ours", "percentile", "bca"), 0)
    for seed in range(draws):
        values = draw(rng, n)
        groups = films(n) if law == "in films" else None
        found = {
            "ours": mean_interval(values, groups, confidence=CONFIDENCE, draws=RESAMPLED, seed=seed),
            "percentile": percentile(values, seed),
            "bca": bca(values, seed),
        }
        for name, (low, high) in found.items():
            hits[name] += low <= truth <= high
    return {name: count / draws for name, count in hits.items()}


def gap_coverage(law: str, num_val: int, num_test: int, draws: int) -> float:
    """How often the gap's interval holds 0.05, by which val's images score higher than test's in the long run."""
    draw, _ = LAWS[law]
    rng, hits = np.random.default_rng(num_val + num_test), 0
    for seed in range(draws):
        val, test = draw(rng, num_val), draw(rng, num_test) - 0.05
        groups = (films(num_val), films(num_test)) if law == "in films" else (None, None)
        low, high = difference_interval(val, test, groups, confidence=CONFIDENCE, draws=RESAMPLED, seed=seed)
        hits += low <= 0.05 <= high
    return hits / draws


def search_coverage(num_val: int, num_test: int, draws: int) -> tuple[float, float]:
    """After a search over models of equal worth: the mean gap, and how often the interval holds it."""
    rng, gaps, intervals = np.random.default_rng(1), [], []
    for seed in range(draws):
        # An image is as hard for one model as for another, up to some noise of each.
        hard = rng.normal(0, 0.08, num_val)
        val = 0.8 + hard + rng.normal(0, 0.08, (NUM_MODELS, num_val))
        won = val[val.mean(1).argmax()]
        test = 0.8 + rng.normal(0, 0.08 * np.sqrt(2), num_test)
        gaps.append(won.mean() - test.mean())
        intervals.append(difference_interval(won, test, confidence=CONFIDENCE, draws=RESAMPLED, seed=seed))
    truth = float(np.mean(gaps))
    return truth, sum(low <= truth <= high for low, high in intervals) / draws


def noise_search(draws: int, num_test: int = 24) -> dict[str, tuple[float, float]]:
    """Mean and standard error of what a search on noise gains over all foreground, by who scores it."""
    rng, thresholds = np.random.default_rng(2), np.linspace(0, 1, 21)
    found: dict[str, list[float]] = {"val": [], "cross-fitted": [], "test": []}
    for _ in range(draws):
        # Probability of each half of each image; by symmetry the mask is the first half.
        curves = iou_curves(rng.random((NUM_MODELS * NUM_EPOCHS, NUM_VAL, 2)), thresholds)
        best = curves.mean(1).max(1).argmax()
        won = curves[best]
        at = won.mean(0).argmax()
        halves = won[::2], won[1::2]
        crossed = [halves[h][:, halves[1 - h].mean(0).argmax()].mean() for h in (0, 1)]
        test = iou_curves(rng.random((1, num_test, 2)), thresholds)[0]
        for name, value in (
            ("val", won[:, at].mean()),
            ("cross-fitted", np.mean(crossed)),
            ("test", test[:, at].mean()),
        ):
            found[name].append(float(value) - 0.5)
    return {name: (float(np.mean(v)), float(np.std(v) / np.sqrt(draws))) for name, v in found.items()}


def iou_curves(probs: Array, thresholds: Array) -> Array:
    """`(..., 2)` probabilities of the half that is foreground and of the one that is not -> `(..., T)` IoU."""
    right, wrong = (probs[..., side, None] >= thresholds for side in (0, 1))
    return right / (1.0 + wrong)


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few draws; writes no page")
    draws, noise_draws = (100, 50) if parser.parse_args().quick else (DRAWS, NOISE_DRAWS)
    begin = time.perf_counter()

    means = {(law, n): mean_coverage(law, n, draws) for law in LAWS for n in (12, 24, 48, 96)}
    sizes = ((24, 24), (48, 48), (128, 48), (96, 96))
    gaps = {(law, *pair): gap_coverage(law, *pair, draws) for law in LAWS for pair in sizes}
    searched = {pair: search_coverage(*pair, draws) for pair in sizes}
    noise = noise_search(noise_draws)

    lines = [f"Interval of a mean, {CONFIDENCE:.0%} asked for, {draws} data sets each:", ""]
    rows = [[law, str(n), *(f"{share:.1%}" for share in found.values())] for (law, n), found in means.items()]
    lines += table(["IoUs", "images", "ours", "percentile", "BCa"], rows)
    lines += ["", f"Interval of val less test, {CONFIDENCE:.0%} asked for, {draws} data sets each:", ""]
    rows = [[law, str(val), str(test), f"{share:.1%}"] for (law, val, test), share in gaps.items()]
    rows += [
        [f"won a search, gap {gap:.4f}", str(v), str(t), f"{share:.1%}"] for (v, t), (gap, share) in searched.items()
    ]
    lines += table(["IoUs", "val", "test", "ours"], rows)
    lines += ["", f"Gain over all foreground on masks of noise, {noise_draws} searches:", ""]
    lines += table(
        ["scored on", "gain", "standard error"], [[n, f"{g:+.4f}", f"{e:.4f}"] for n, (g, e) in noise.items()]
    )
    print("\n".join(lines))
    if draws == DRAWS:
        assert __doc__ is not None
        print(write_page("coverage", "Coverage of the intervals", __doc__, lines, "numpy"))

    large = [found["ours"] for (law, n), found in means.items() if n >= 48]
    every_gap = [share for (_, val, _), share in gaps.items() if val >= 48]
    record = {
        "draws": draws,
        "nominal": CONFIDENCE,
        "mean_coverage": [min(large), max(large)],
        "gap_coverage": [min(every_gap), max(every_gap)],
        "search_gap_coverage": [min(s for _, s in searched.values()), max(s for _, s in searched.values())],
        "noise_gain_val": noise["val"][0],
        "noise_gain_cross_fitted": noise["cross-fitted"][0],
        "noise_gain_test": noise["test"][0],
        "noise_gain_test_error": noise["test"][1],
        "seconds": time.perf_counter() - begin,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
