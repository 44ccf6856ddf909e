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

Trainings again with other seeds: three configs, 3 seeds each, on the same images; compared are two of them. An image is
as hard for one config as for another (standard deviation 0.1) up to what suits a config (0.03); a seed is worth
something (0.012), and each training has luck with single images (0.05, or 0.1 where luck is `large`, and 0.03 where it
is `small`). `noisy` is a config whose seeds and luck have twice the standard deviation; it is one of the pair, or the
third, whose seeds help to tell the noise of the pair. Means are equal, so an interval that does not hold 0 tells
identical configs apart. `added up` takes the pooled noise of seeds alone, and counts a training's luck with single
images twice; `images alone` takes seeds for no noise at all. Ours are wider than asked for where the third is noisy
and where luck is large beside what seeds are worth: no variance is taken to be below that of the images or of seeds.

The score to quote without a test split: a search of 12, 50 or 200 trials, from the same laws, whose settings differ
in what they are worth (standard deviation 0.01). Each training rises to its end over 5 epochs, which differ by chance
(0.004, and 0.02 in single images), and is worth its best epoch on val. The best 3 trials are trained again with 3
fresh seeds, whose best epochs are chosen on val, too; of those that are tied, one wins (at random, as the smaller
model does). The truth is what the winner's settings are worth on other images, at such epochs. `ours` is how often
the interval of the mean over fresh seeds holds it; `too high` are the mean excess of that mean, of the search's own
value of the winner, and of the best of the winner's trainings, which is the one that is sealed.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from bench_page import table, write_page

from search.reruns.decision import Candidate, decide
from segcore.objective import Objective
from segcore.scores.intervals import difference_interval, mean_interval, t_quantile
from segcore.scores.seed_noise import difference_over_seeds, mean_over_seeds, seed_variance

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
CONFIDENCE = 0.9
DRAWS, NOISE_DRAWS, RESAMPLED = 500, 500, 1000
FILM = 4
NUM_MODELS, NUM_EPOCHS, NUM_VAL = 20, 5, 24
NUM_SEEDS, SEED_DRAWS = 3, 1000
LUCK = {"small": 0.03, "medium": 0.05, "large": 0.1}
NOISES = {"none": (1.0, 1.0, 1.0), "one of the pair": (2.0, 1.0, 1.0), "the third": (1.0, 1.0, 2.0)}
NORMAL = NormalDist()
NUM_TRIALS, TOP_K, QUOTED_DRAWS = (12, 50, 200), 3, 200
RISE = -0.02 * np.linspace(1, 0, NUM_EPOCHS) ** 2
"""What a training lacks at each of its epochs."""


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


def seeds_coverage(luck: str, n: int, noises: tuple[float, ...], draws: int) -> dict[str, float]:
    """How often the interval of the first config less the second holds the truth, by how it is formed.

    Both have the same mean, so whichever interval does not hold 0 tells identical configs apart.
    """
    rng = np.random.default_rng(n)
    hits = dict.fromkeys(("ours", "added up", "images alone"), 0)
    for _ in range(draws):
        images = rng.normal(0, 0.1, n)
        cells = [seeds_draw(rng, images, luck, noise) for noise in noises]
        pooled = seed_variance(cells)
        found = difference_over_seeds(cells[0], cells[1], noise=pooled, confidence=CONFIDENCE)
        hits["ours"] += found.low <= 0.0 <= found.high
        difference = abs(cells[0].mean() - cells[1].mean())
        hits["added up"] += bool(difference <= half_width(cells[0], cells[1], pooled))
        hits["images alone"] += bool(difference <= half_width(cells[0], cells[1], (0.0, pooled[1])))
    return {name: count / draws for name, count in hits.items()}


def seeds_draw(rng: np.random.Generator, images: Array, luck: str, noise: float) -> Array:
    """`(S, N)` scores of a config; `noise` is how noisy its training is."""
    n = len(images)
    own = images + rng.normal(0, 0.03, n)
    seeds = rng.normal(0, 0.012 * noise, (NUM_SEEDS, 1))
    return np.asarray(0.5 + own + seeds + rng.normal(0, LUCK[luck] * noise, (NUM_SEEDS, n)))


def half_width(first: Array, second: Array, noise: tuple[float, int]) -> float:
    """Of the interval of a difference whose two variances are simply added, for comparison."""
    n = first.shape[1]
    of_images = float((first.mean(0) - second.mean(0)).var(ddof=1)) / n
    of_seeds = noise[0] * 2 / NUM_SEEDS
    total = of_images + of_seeds
    degrees = total**2 / (of_images**2 / (n - 1) + of_seeds**2 / noise[1])
    return t_quantile((1 + CONFIDENCE) / 2, degrees) * float(np.sqrt(total))


def trainings(rng: np.random.Generator, settings: Array) -> tuple[Array, Array]:
    """Trains each of `(T, N)` settings, given by what they are worth on each image.

    Returns:
        `(T, E, N)` IoUs by epoch and image, and `(T, E)`: what each epoch is worth beside its settings.
    """
    count, n = settings.shape
    own = settings + rng.normal(0, 0.012, (count, 1)) + rng.normal(0, LUCK["medium"], (count, n))
    worth = RISE + rng.normal(0, 0.004, (count, NUM_EPOCHS))
    return own[:, None] + worth[:, :, None] + rng.normal(0, 0.02, (count, NUM_EPOCHS, n)), worth


def quoted_coverage(num_trials: int, n: int, draws: int) -> tuple[float, Array]:
    """How often the interval over fresh seeds holds the truth of a search's winner, and what exceeds it by how much.

    Args:
        num_trials: Of the search.
        n: Images of val.
        draws: Searches.
    """
    rng, hits, excess = np.random.default_rng([num_trials, n]), 0, np.zeros(3)
    every = np.arange(NUM_SEEDS)
    for _ in range(draws):
        worth = rng.normal(0, 0.01, num_trials)
        images = 0.5 + rng.normal(0, 0.1, n)
        settings = images + worth[:, None] + rng.normal(0, 0.03, (num_trials, n))
        seen = trainings(rng, settings)[0].mean(2).max(1)
        candidates, truths = [], {}
        for trial in map(int, np.argsort(-seen)[:TOP_K]):
            again, at_epoch = trainings(rng, np.repeat(settings[trial][None], NUM_SEEDS, 0))
            best = again.mean(2).argmax(1)
            scores = again[every, best]
            truths[trial] = 0.5 + worth[trial] + at_epoch[every, best].mean()
            values = dict(enumerate(scores.mean(1).tolist()))
            cost = {"cost/parameters": float(rng.random())}
            candidates.append(Candidate(trial, float(seen[trial]), values, scores, cost))
        winner = decide(candidates, [str(i) for i in range(n)], Objective("val/iou"), list(range(NUM_SEEDS))).winner
        noise = seed_variance([candidate.scores for candidate in candidates])
        own = next(candidate for candidate in candidates if candidate.trial == winner)
        found = mean_over_seeds(own.scores, noise=noise, confidence=CONFIDENCE)
        hits += found.low <= truths[winner] <= found.high
        best_training = max(seen[winner], own.scores.mean(1).max())
        excess += np.array([found.value, seen[winner], best_training]) - truths[winner]
    return hits / draws, excess / draws


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few draws; writes no page")
    quick = parser.parse_args().quick
    draws, noise_draws, seed_draws = (100, 50, 50) if quick else (DRAWS, NOISE_DRAWS, SEED_DRAWS)
    quoted_draws = 20 if quick else QUOTED_DRAWS
    begin = time.perf_counter()

    means = {(law, n): mean_coverage(law, n, draws) for law in LAWS for n in (12, 24, 48, 96)}
    sizes = ((24, 24), (48, 48), (128, 48), (96, 96))
    gaps = {(law, *pair): gap_coverage(law, *pair, draws) for law in LAWS for pair in sizes}
    searched = {pair: search_coverage(*pair, draws) for pair in sizes}
    noise = noise_search(noise_draws)
    cases = [(luck, n, noisy) for luck in LUCK for n in (12, 48, 129) for noisy in NOISES]
    over_seeds = {(luck, n, noisy): seeds_coverage(luck, n, NOISES[noisy], seed_draws) for luck, n, noisy in cases}

    quoted = {(trials, n): quoted_coverage(trials, n, quoted_draws) for trials in NUM_TRIALS for n in (24, 48, 129)}

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
    lines += ["", f"Difference of two configs over seeds, {CONFIDENCE:.0%} asked for, {seed_draws} draws each:", ""]
    rows = [
        [luck, str(n), noisy, *(f"{share:.1%}" for share in found.values()), f"{1 - found['ours']:.1%}"]
        for (luck, n, noisy), found in over_seeds.items()
    ]
    header = ["luck", "images", "noisy", "ours", "added up", "images alone", "identical told apart"]
    lines += table(header, rows)
    lines += ["", f"Score to quote over fresh seeds, {CONFIDENCE:.0%} asked for, {quoted_draws} searches each:", ""]
    rows = [
        [str(trials), str(n), f"{share:.1%}", *(f"{value:+.4f}" for value in excess)]
        for (trials, n), (share, excess) in quoted.items()
    ]
    header = ["trials", "images", "ours", "too high: fresh seeds", "the search's value", "the sealed training's"]
    lines += table(header, rows)
    print("\n".join(lines))
    if draws == DRAWS:
        assert __doc__ is not None
        print(write_page("coverage", "Coverage of the intervals", __doc__, lines, "numpy"))

    large = [found["ours"] for (law, n), found in means.items() if n >= 48]
    every_gap = [share for (_, val, _), share in gaps.items() if val >= 48]
    equal = [found["ours"] for (_, _, noisy), found in over_seeds.items() if noisy == "none"]
    unequal = [found["ours"] for (_, _, noisy), found in over_seeds.items() if noisy != "none"]
    record = {
        "draws": draws,
        "nominal": CONFIDENCE,
        "mean_coverage": [min(large), max(large)],
        "gap_coverage": [min(every_gap), max(every_gap)],
        "search_gap_coverage": [min(s for _, s in searched.values()), max(s for _, s in searched.values())],
        "seeds_coverage": [min(equal), max(equal)],
        "seeds_coverage_noisy": [min(unequal), max(unequal)],
        "quoted_coverage": [min(s for s, _ in quoted.values()), max(s for s, _ in quoted.values())],
        "noise_gain_val": noise["val"][0],
        "noise_gain_cross_fitted": noise["cross-fitted"][0],
        "noise_gain_test": noise["test"][0],
        "noise_gain_test_error": noise["test"][1],
        "seconds": time.perf_counter() - begin,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
