import numpy as np
import pytest
import torch

from segcore.scores.histogram import HistogramCounter


def _batch(num_images, pixels, seed=0, dtype=torch.float32):
    """Unsure and saturated probabilities, many of them exactly on an edge."""
    generator = torch.Generator().manual_seed(seed)
    probs = (torch.randn(num_images, pixels, generator=generator, dtype=dtype) * 8).sigmoid()
    probs[:, ::3] = (probs[:, ::3] * 64).round() / 64
    targets = (torch.rand(num_images, pixels, generator=generator) < probs).to(torch.uint8)
    targets[0] = 0
    return probs, targets


def _histogram(probs, targets, num_bins):
    """The same by numpy, from the definition: the last bin holds 1 alone."""
    edges = np.append(np.arange(num_bins + 1) / num_bins, 2.0)
    values = probs.double().numpy()
    rows = [[np.histogram(v[t == c], edges)[0] for c in (0, 1)] for v, t in zip(values, targets.numpy(), strict=True)]
    return torch.tensor(np.array(rows), dtype=torch.int32)


# Images of 16,384 pixels and more count into several histograms; 16,384 bins and more need int32 codes.
@pytest.mark.parametrize("pixels", [1, 35, 16_384, 20_001])
@pytest.mark.parametrize("num_bins", [2, 1024, 16_384, 65_536])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_are_those_of_numpy(pixels, num_bins, dtype):
    counter = HistogramCounter(num_bins)
    for num_images in (5, 1, 7):
        probs, targets = _batch(num_images, pixels, seed=num_images, dtype=dtype)
        expected = _histogram(probs, targets, num_bins)
        assert torch.equal(counter.count(probs, targets), expected)


@pytest.mark.parametrize("pixels", [35, 20_001])
@pytest.mark.parametrize("cuts", [(), (0.3, 0.7003)])
def test_what_runs_on_a_gpu_counts_what_runs_on_the_cpu(pixels, cuts):
    on_cpu, as_on_gpu = HistogramCounter(1024, cuts), HistogramCounter(1024, cuts)
    for num_images in (5, 1, 7):
        probs, targets = _batch(num_images, pixels, seed=num_images)
        assert torch.equal(as_on_gpu._count_at_once(probs, targets), on_cpu.count(probs, targets))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3e38, 2.0])
def test_as_on_a_gpu_no_value_leaves_its_images_counters(value):
    probs, targets = _batch(3, 35)
    expected = HistogramCounter(1024).count(probs, targets)
    probs[1], targets[1] = value, 255
    found = HistogramCounter(1024)._count_at_once(probs, targets)
    assert torch.equal(found[::2], expected[::2])
    assert found[1].sum() == 35


def test_cuts_split_the_bins_they_lie_in():
    counter = HistogramCounter(4, cuts=(0.3, 0.4))
    probs = torch.tensor([[0.0, 0.25, 0.3, 0.35, 0.4, 0.49, 0.5, 1.0]])
    found = counter.count(probs, torch.zeros_like(probs, dtype=torch.uint8))
    assert found[0, 0].tolist() == [1, 1, 2, 2, 1, 0, 1]
    thresholds = np.array([0.0, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0])
    assert counter.positions(thresholds) == list(range(7))
