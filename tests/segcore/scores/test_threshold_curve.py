import json
import math

import numpy as np
import pytest
import torch

from segcore.errors import TrainingError
from segcore.scores.curve import METRICS
from segcore.scores.threshold_curve import ThresholdCurve


def _batch(num_images=5, height=9, width=11, seed=0, levels=None):
    """Random probabilities that say something about the targets; images 0 and 1 have an empty and a full target."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(num_images, 1, height, width, generator=generator) < 0.4).to(torch.uint8)
    targets[0] = 0
    targets[1] = 1
    probs = (0.6 * torch.rand(targets.shape, generator=generator) + 0.4 * targets).clamp(0, 1)
    if levels is not None:
        probs = (probs * levels).round() / levels
    return probs, targets


def _curve(probs, targets, num_bins=1024, **settings):
    curve = ThresholdCurve(num_bins, **settings)
    curve.update(probs, targets)
    return curve.compute()


def _brute(probs, targets, threshold):
    """The four scores by the definition, in float64."""
    # A bfloat16 comparison would round the threshold.
    preds, truth = (probs.double() >= threshold).numpy()[:, 0], targets.numpy()[:, 0] > 0
    intersection = (preds & truth).sum((1, 2)).astype(float)
    union, total = (preds | truth).sum((1, 2)).astype(float), (preds.sum((1, 2)) + truth.sum((1, 2))).astype(float)
    iou = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    dice = np.where(total > 0, 2 * intersection / np.maximum(total, 1), 1.0)
    return {
        "iou": iou.mean(),
        "dice": dice.mean(),
        "iou_pooled": intersection.sum() / union.sum() if union.sum() else 1.0,
        "dice_pooled": 2 * intersection.sum() / total.sum() if total.sum() else 1.0,
    }


def test_by_hand():
    probs = torch.tensor([[[[0.9, 0.6, 0.4, 0.1]]], [[[0.8, 0.8, 0.2, 0.2]]]])
    targets = torch.tensor([[[[1, 0, 1, 0]]], [[[1, 1, 0, 0]]]])
    result = _curve(probs, targets)
    # At 0.5: the first image has TP 1, FP 1, FN 1; the second is perfect.
    point = result.at(0.5)
    assert point.is_exact
    assert point.iou == pytest.approx((1 / 3 + 1) / 2)
    assert point.dice == pytest.approx((2 / 4 + 1) / 2)
    assert point.iou_pooled == pytest.approx(3 / 5)
    assert point.dice_pooled == pytest.approx(6 / 8)
    assert result.per_image_iou(0.5).tolist() == pytest.approx([1 / 3, 1.0])
    assert result.per_image_dice(0.5).tolist() == pytest.approx([1 / 2, 1.0])
    # At 0 everything is foreground.
    assert result.at(0.0).iou == pytest.approx(0.5)


@pytest.mark.parametrize("num_bins", [2, 64, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_every_edge_equals_brute_force(num_bins, dtype):
    probs, targets = _batch(seed=num_bins)
    probs = probs.to(dtype)
    probs[2, 0, 0, :4] = torch.tensor([0.0, 0.5, 1.0, 1.0 - 2**-8]).to(dtype)
    result = _curve(probs, targets, num_bins)
    assert result.thresholds.tolist() == [k / num_bins for k in range(num_bins + 1)]
    for k, threshold in enumerate(result.thresholds):
        expected = _brute(probs, targets, threshold)
        for metric, name in METRICS.items():
            assert getattr(result, name)[k] == pytest.approx(expected[metric], abs=1e-15)


def test_probabilities_on_and_beside_an_edge():
    below = np.nextafter(np.float32(0.5), np.float32(0)).item()
    probs = torch.tensor([[[[below, 0.5, 1.0, np.nextafter(np.float32(1), np.float32(0)).item()]]]])
    targets = torch.ones_like(probs)
    result = _curve(probs, targets)
    assert result.at(0.5).iou == 3 / 4
    assert result.at(0.5 + 1 / 1024).iou == 2 / 4
    assert result.at(0.5 - 1 / 1024).iou == 1.0
    assert result.at(1.0).iou == 1 / 4  # prob == 1 still counts at threshold 1


def test_batches_of_different_sizes_add_up_and_keep_their_order():
    first, second = _batch(3, 4, 5, seed=1), _batch(4, 6, 3, seed=2)
    curve = ThresholdCurve()
    curve.update(*first)
    curve.update(*second)
    result = curve.compute()
    assert result.num_images == 7
    expected = [_brute(p[i : i + 1], t[i : i + 1], 0.25)["iou"] for p, t in (first, second) for i in range(len(p))]
    assert result.per_image_iou(0.25).tolist() == pytest.approx(expected, abs=1e-15)
    assert result.at(0.25).iou == pytest.approx(np.mean(expected), abs=1e-15)


def test_many_images_are_computed_in_slices():
    probs, targets = _batch(600, 3, 3)
    result = _curve(probs, targets, num_bins=16)
    expected = _brute(probs, targets, 0.5)
    for metric in METRICS:
        assert getattr(result.at(0.5), metric) == pytest.approx(expected[metric], abs=1e-14)


def test_empty_target_scores_1_only_when_nothing_is_predicted():
    probs = torch.full((1, 1, 2, 2), 0.3)
    result = _curve(probs, torch.zeros_like(probs))
    for metric in METRICS:
        assert getattr(result.at(0.25), metric) == 0.0
        assert getattr(result.at(0.5), metric) == 1.0


@pytest.mark.parametrize("fill", [0, 1], ids=["empty", "full"])
def test_perfect_and_inverted_predictions(fill):
    targets = torch.full((2, 1, 3, 3), fill)
    assert _curve(targets.float(), targets).best() == (0.5, 1.0, 0.0)
    inverted = _curve(1.0 - targets, targets)
    assert inverted.at(0.5).iou == inverted.at(0.5).dice == 0.0


@pytest.mark.parametrize("num_bins", [4, 32, 1024])
@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_beats_the_best_edge_by_more_than_the_certified_gap(num_bins, seed):
    probs, targets = _batch(num_images=2 + seed, seed=seed, levels=None if seed % 2 else 40)
    result = _curve(probs, targets, num_bins)
    # Every prediction that any threshold in [0, 1] can give.
    values = np.unique(np.concatenate([probs.numpy().ravel(), [np.float32(0), np.float32(1)]]))
    scores = [_brute(probs, targets, float(value)) for value in values]
    for metric in METRICS:
        threshold, value, gap = result.best(metric)
        optimum = max(score[metric] for score in scores)
        assert value == pytest.approx(_brute(probs, targets, threshold)[metric], abs=1e-15)
        assert value <= optimum + 1e-15
        assert optimum <= value + gap + 1e-15
        assert gap <= 2.5 / math.sqrt(num_bins) + 0.05  # and says something


def test_the_gap_covers_images_whose_prediction_empties_inside_a_bin():
    # Edges see a false positive at 0.25 and nothing left at 0.5; a threshold of 0.4 keeps the other image's pixel.
    probs = torch.tensor([[[[0.3, 0.0]]], [[[0.45, 0.0]]]])
    targets = torch.tensor([[[[0, 0]]], [[[1, 0]]]])
    threshold, value, gap = _curve(probs, targets, num_bins=4).best()
    assert (threshold, value) == (0.5, 0.5)
    assert _brute(probs, targets, 0.4)["iou"] == 1.0
    assert value + gap >= 1.0


def test_the_gap_is_0_when_all_probabilities_lie_on_edges():
    probs, targets = _batch(levels=64)
    result = _curve(probs, targets, num_bins=64)
    for metric in ("iou_pooled", "dice_pooled"):
        # Between edges k and k + 1 the prediction is that of k + 1: the bound may mix both, an edge cannot be beaten.
        optimum = max(_brute(probs, targets, float(v))[metric] for v in np.unique(probs.numpy()))
        assert result.best(metric)[1] == pytest.approx(optimum, abs=1e-15)


def test_ties_go_to_the_threshold_nearest_to_one_half():
    probs = torch.tensor([[[[0.1, 0.9]]]])
    targets = torch.tensor([[[[0, 1]]]])
    assert _curve(probs, targets).best() == (0.5, 1.0, 0.0)
    low = torch.tensor([[[[0.0625, 0.25]]]])
    assert _curve(low, targets, num_bins=16).best()[0] == 0.25
    high = torch.tensor([[[[0.75, 1.0]]]])
    assert _curve(high, targets, num_bins=16).best()[0] == 0.8125


def test_a_threshold_off_the_edges_is_taken_down_and_says_so():
    result = _curve(*_batch(), num_bins=8)
    point = result.at(0.3)
    assert (point.requested, point.threshold, point.is_exact) == (0.3, 0.25, False)
    assert point.iou == result.at(0.25).iou
    assert result.at(0.25).is_exact


def test_a_threshold_asked_for_beforehand_is_exact():
    probs, targets = _batch()
    probs[2, 0, 0, 0] = 0.3  # exactly at the threshold, as float32
    curve = ThresholdCurve(8, thresholds=(0.3, 0.7, 0.5))
    curve.update(probs[:2], targets[:2])
    curve.update(probs[2:], targets[2:])
    result = curve.compute()
    for threshold in (0.3, 0.7, 0.5):
        # Torch and numpy compare float32 probabilities with the float32 nearest to the threshold.
        point, expected = result.at(threshold), _brute(probs, targets, float(np.float32(threshold)))
        assert (point.threshold, point.is_exact) == (threshold, True)
        for metric in METRICS:
            assert getattr(point, metric) == pytest.approx(expected[metric], abs=1e-15)
        assert result.per_image_iou(threshold).mean() == pytest.approx(expected["iou"], abs=1e-15)


def test_zero_minus_zero_denormals_and_one():
    smallest, below_one = float.fromhex("0x1p-149"), np.nextafter(np.float32(1), np.float32(0)).item()
    probs = torch.tensor([[[[0.0, -0.0, smallest, below_one, 1.0, 1.0]]]])
    targets = torch.tensor([[[[0, 1, 1, 1, 1, 0]]]], dtype=torch.uint8)
    curve = ThresholdCurve(1024, thresholds=(1e-30,))
    curve.update(probs, targets)
    result = curve.compute()
    assert result.at(0.0).iou == 4 / 6
    assert result.at(1e-30).iou == result.at(1 / 1024).iou == result.at(1023 / 1024).iou == 2 / 5
    assert result.at(1.0).iou == 1 / 5


def test_thresholds_that_float32_takes_for_an_edge_or_for_each_other():
    # Against float32 probabilities all of these are 0.5; against float64 ones each is itself.
    thresholds = (0.5 - 2e-12, 0.5 - 1e-12, 0.5 + 1e-12)
    values = [0.4, *thresholds, 0.5, 0.6]
    targets = torch.ones(1, 1, 1, len(values))
    for dtype, expected in ((torch.float32, [5, 5, 5, 5]), (torch.float64, [5, 4, 2, 3])):
        curve = ThresholdCurve(8, thresholds=thresholds)
        curve.update(torch.tensor(values, dtype=dtype).view(1, 1, 1, -1), targets)
        result = curve.compute()
        assert [result.at(t).iou * len(values) for t in (*thresholds, 0.5)] == pytest.approx(expected)


def test_layout_makes_no_difference():
    probs, targets = _batch(4, 8, 12)
    expected = _curve(probs, targets)
    wide = torch.zeros(4, 2, 8, 24)
    wide[:, 1:, :, ::2] = probs
    alike = [
        (wide[:, 1:, :, ::2], targets),
        (probs.to(memory_format=torch.channels_last), targets.bool()),
        (probs.requires_grad_(), targets.float().transpose(2, 3).contiguous().transpose(2, 3)),
    ]
    for some_probs, some_targets in alike:
        result = _curve(some_probs, some_targets)
        for threshold in (0.0, 0.3125, 0.75):
            assert np.array_equal(result.per_image_iou(threshold), expected.per_image_iou(threshold))


def test_an_update_counts_the_same_under_autocast_and_in_and_out_of_inference_mode():
    probs, targets = _batch(6)
    curve = ThresholdCurve(thresholds=(0.3,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        curve.update(probs[:2], targets[:2])
    with torch.inference_mode():
        curve.update(probs[2:4], targets[2:4])
    curve.update(probs[4:], targets[4:])
    for threshold in (0.25, 0.3):
        expected = _brute(probs, targets, float(np.float32(threshold)))["iou"]
        assert curve.compute().at(threshold).iou == pytest.approx(expected, abs=1e-15)


def test_nan_probabilities_are_an_error():
    probs, targets = _batch()
    probs[3, 0, 2, 2] = math.nan
    curve = ThresholdCurve()
    curve.update(*_batch(seed=1))
    curve.update(probs, targets)
    with pytest.raises(TrainingError, match="NaN"):
        curve.compute()


def test_logits_in_place_of_probabilities_are_an_error():
    probs, targets = _batch()
    with pytest.raises(ValueError, match=r"probs must lie in \[0, 1\].*sigmoid"):
        _curve(probs * 4 - 2, targets)


def test_targets_of_0_and_255_are_an_error():
    probs, targets = _batch()
    with pytest.raises(ValueError, match="targets must be 0 or 1, found 255"):
        _curve(probs, targets * 255)


def test_nothing_counted_is_an_error():
    with pytest.raises(TrainingError, match="no image was scored"):
        ThresholdCurve().compute()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        ThresholdCurve().update(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


@pytest.mark.parametrize("num_bins", [0, 1, 1000, 131_072])
def test_the_number_of_bins_is_a_power_of_two(num_bins):
    with pytest.raises(ValueError, match="power of two"):
        ThresholdCurve(num_bins)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_thresholds_outside_0_to_1_are_refused(threshold):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        _curve(*_batch(2)).at(threshold)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        ThresholdCurve(thresholds=(threshold,))


def test_unknown_metric_lists_the_known_ones():
    with pytest.raises(ValueError, match="'f1'; valid: iou, iou_pooled, dice, dice_pooled"):
        _curve(*_batch(2)).best("f1")


def test_to_dict_is_plain_json():
    result = _curve(*_batch())
    record = json.loads(json.dumps(result.to_dict(points=11)))
    assert record["num_images"] == 5
    assert len(record["threshold"]) == len(record["iou"]) == len(record["dice_pooled"]) == 11
    assert (record["threshold"][0], record["threshold"][-1]) == (0.0, 1.0)
    index = round(record["threshold"][3] * 1024)
    assert record["iou"][3] == result.iou_per_image_mean[index]
    assert record["best"]["iou"]["value"] == result.best("iou")[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_counts_what_the_cpu_counts():
    probs, targets = _batch()
    on_gpu, on_cpu = _curve(probs.cuda(), targets.cuda(), device="cuda"), _curve(probs, targets)
    for name in METRICS.values():
        assert getattr(on_gpu, name) == pytest.approx(getattr(on_cpu, name), abs=1e-15)
    for threshold in (0.25, 0.5):
        assert np.array_equal(on_gpu.per_image_iou(threshold), on_cpu.per_image_iou(threshold))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_update_waits_for_a_cuda_device():
    probs, targets = (x.cuda() for x in _batch())
    curve = ThresholdCurve(device="cuda", thresholds=(0.3,))
    torch.cuda.set_sync_debug_mode("error")
    try:
        curve.update(probs, targets)
        curve.update(probs[:2], targets[:2])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert curve.compute().num_images == len(probs) + 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("value", [math.nan, math.inf, -3e38, 2.0])
def test_no_probability_writes_outside_the_counters_of_a_cuda_device(value):
    probs, targets = _batch()
    probs[-1] = value
    with pytest.raises((TrainingError, ValueError), match=r"NaN|must lie in \[0, 1\]"):
        _curve(probs.cuda(), targets.cuda() * 255)
