"""What the threshold curve costs: IoU and Dice at 1,024 thresholds, as means over images and pooled, from one pass.

    make bench NAME=threshold

*The loop* is how a threshold is searched for by hand: for each of 100 thresholds compare, count true positives, false
positives and false negatives image by image, and form both scores both ways. *The lean loop* makes no more passes over
the pixels than that needs: the intersection and the predicted pixels. *torchmetrics* is
`BinaryPrecisionRecallCurve(thresholds=100)`, which counts pooled alone. All see the same float32 probabilities in
batches of 32 on the CPU. Figures are CPU time, each the best of its rounds, taken in turns; in every other round freed
memory is kept as in training, which spares the loops page faults. *Masks* are probabilities like a trained model's: a
smooth random field, so sharp that over half of the pixels are sure to a thousandth, under coarse and fine noise.
*Noise* is uniform, which no model gives: the worst case of a histogram's cache.

The edge error is the largest difference, over 129 of our thresholds, from the loop's scores in float64, with masks,
noise, and probabilities that all lie exactly on thresholds. The share of validation is the curve's part of
`segcore.training.evaluation.evaluate` without loading: on a CPU in float32, of CPU time, with one thread, as a trial
has; on a GPU in bf16, of wall time, where the curve's is the device's time of each update and the wall time of the
rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bench_page import device_name, table, write_page
from plain_config import plain_config
from torch import Tensor

from segcore.data.loader import Batch
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.scores.curve import METRICS, CurveResult
from segcore.scores.threshold_curve import ThresholdCurve
from segcore.sealed.predictor import Predictor
from segcore.task import BINARY
from segcore.training.device import (
    begin_trial,
    choose_device,
    freed_memory_kept,
    prepare_device,
)
from segcore.training.evaluation import evaluate

HAS_TORCHMETRICS = find_spec("torchmetrics") is not None
Batches = list[tuple[Tensor, Tensor]]
BATCH_SIZE, SIDE = 32, 256
WAYS = ("ours", "loop", "lean loop", "torchmetrics")
THRESHOLDS = [k / 100 for k in range(100)]
MODELS = {
    "U-Net on a ResNet50": {"model.arch": "unet", "model.encoder": "timm:resnet50"},
    "small U-Net (16 channels)": {"model.base_channels": 16},
}


class InMemoryLoader:
    """Batches of the model's input that cost nothing to load."""

    def __init__(self, num_samples: int, batch_size: int, is_pinned: bool) -> None:
        self.num_samples, self.batch_size = num_samples, batch_size
        images = torch.randint(0, 256, (batch_size, SIDE, SIDE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        self.batch = Batch(images, masks(batch_size, 0)[1], torch.arange(batch_size))
        if is_pinned:
            self.batch = self.batch.pin_memory()

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.num_samples // self.batch_size):
            yield self.batch


def masks(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Probabilities like a trained model's, and targets."""
    generator = torch.Generator().manual_seed(seed)

    def field(cells: int) -> Tensor:
        coarse = torch.randn(num_images, 1, cells, cells, generator=generator)
        return F.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)

    shape = field(SIDE // 32 + 1) - 0.3
    logits = 16 * shape + 2 * field(SIDE // 4) + 0.3 * torch.randn(shape.shape, generator=generator)
    return logits.sigmoid(), (shape > 0).to(torch.uint8)


def noise(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Uniform probabilities and coin-flip targets."""
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(num_images, 1, SIDE, SIDE, generator=generator)
    return probs, (torch.rand(probs.shape, generator=generator) < 0.5).to(torch.uint8)


def ours(batches: Batches) -> CurveResult:
    """Our curve, and its best threshold."""
    curve = ThresholdCurve()
    for probs, targets in batches:
        curve.update(probs, targets)
    result = curve.compute()
    result.best("iou")
    return result


def loop(batches: Batches, thresholds: list[float] = THRESHOLDS) -> dict[str, list[float]]:
    """The scores at each threshold, one comparison and three counts each."""
    counts: list[list[Tensor]] = [[] for _ in thresholds]
    for probs, targets in batches:
        truth = targets > 0
        for rows, threshold in zip(counts, thresholds, strict=True):
            preds = probs >= threshold
            tp, fp, fn = ((a & b).sum((1, 2, 3)) for a, b in ((preds, truth), (preds, ~truth), (~preds, truth)))
            rows.append(torch.stack([tp, fp, fn]))
    return scores(counts)


def lean_loop(batches: Batches) -> dict[str, list[float]]:
    """The same with two counts each."""
    counts: list[list[Tensor]] = [[] for _ in THRESHOLDS]
    for probs, targets in batches:
        truth = targets > 0
        positive = truth.sum((1, 2, 3))
        for rows, threshold in zip(counts, THRESHOLDS, strict=True):
            preds = probs >= threshold
            tp, predicted = (preds & truth).sum((1, 2, 3)), preds.sum((1, 2, 3))
            rows.append(torch.stack([tp, predicted - tp, positive - tp]))
    return scores(counts)


def scores(counts: list[list[Tensor]]) -> dict[str, list[float]]:
    """Both scores both ways at each threshold, in float64; 1 where there is nothing and nothing is predicted."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for rows in counts:
        per_image = torch.cat(rows, dim=1).double()  # (3, num_images)
        for suffix, (tp, fp, fn) in (("", per_image), ("_pooled", per_image.sum(1))):
            iou = torch.where(tp + fp + fn > 0, tp / (tp + fp + fn), 1.0)
            dice = torch.where(tp + fp + fn > 0, 2 * tp / (2 * tp + fp + fn), 1.0)
            found[f"iou{suffix}"].append(iou.mean().item())
            found[f"dice{suffix}"].append(dice.mean().item())
    return found


def torchmetrics_curve(batches: Batches) -> Any:
    """Precision and recall at 100 thresholds, pooled."""
    from torchmetrics.classification import BinaryPrecisionRecallCurve

    metric = BinaryPrecisionRecallCurve(thresholds=100)
    for probs, targets in batches:
        metric.update(probs, targets)
    return metric.compute()


def cpu_seconds(batches: Batches, rounds: int) -> dict[str, float | None]:
    """CPU time of each way."""
    ways: dict[str, Callable[[Batches], Any]] = {"ours": ours, "loop": loop, "lean loop": lean_loop}
    if HAS_TORCHMETRICS:
        ways["torchmetrics"] = torchmetrics_curve
    found: dict[str, float | None] = {"torchmetrics": None}
    for way in ways.values():
        way(batches[:1])  # what is done once
    for number in range(rounds):
        for name, way in ways.items():
            device = torch.device("cpu" if number % 2 else "cuda")  # for which it does nothing
            with freed_memory_kept(device):
                way(batches[:1])
                started = time.process_time()
                way(batches)
                seconds = time.process_time() - started
            found[name] = min(found.get(name) or seconds, seconds)
    return found


def edge_error(num_images: int) -> float:
    """Largest difference from the loop in float64."""
    probs, targets = masks(num_images, 1)
    targets[0] = 0
    worst = 0.0
    for batch in ((probs, targets), noise(num_images, 1), ((probs * 1024).round() / 1024, targets)):
        result = ours([batch])
        index = np.arange(0, 1025, 8)
        expected = loop([(batch[0].double(), batch[1])], result.thresholds[index].tolist())
        for metric, name in METRICS.items():
            worst = max(worst, float(np.abs(getattr(result, name)[index] - expected[metric]).max()))
    return worst


def validation_seconds(changes: dict[str, Any], num_images: int, batch_size: int) -> tuple[float, float]:
    """Seconds of validation, and those of them that are the curve's."""
    device = choose_device()
    prepare_device(device)
    is_cuda = device.type == "cuda"
    config = plain_config(changes)
    torch.manual_seed(0)
    model = build_model(config.model).to(device).to(memory_format=torch.channels_last)
    loss_fn = build_loss(config.loss)
    precision = torch.bfloat16 if is_cuda else torch.float32
    clock = time.perf_counter if is_cuda else time.process_time
    for count in (batch_size, num_images):  # the first one to warm up
        loader: Any = InMemoryLoader(count, batch_size, is_pinned=is_cuda)
        started = clock()
        evaluate(Predictor(model, BINARY, (SIDE, SIDE), device, precision), loader, loss_fn)
        total_s = clock() - started

    probs, targets = (x.to(device) for x in masks(batch_size, 0))
    num_updates = num_images // batch_size
    curve = ThresholdCurve(device=device)
    update_s = device_seconds(lambda: curve.update(probs, targets)) * num_updates if is_cuda else 0.0
    rest_s = []
    for _ in range(5):
        curve = ThresholdCurve(device=device)
        started = clock()
        for _ in range(num_updates):
            curve.update(probs, targets)
        if is_cuda:  # the launches run beside the model; what counts is the device's time, measured above
            torch.cuda.synchronize()
            started = clock()
        curve.compute().best("iou")
        rest_s.append(clock() - started)
    return total_s, update_s + statistics.median(rest_s)


def device_seconds(call: Callable[[], None], repeats: int = 32) -> float:
    """What the GPU does for one call; it sleeps first, so that it never waits for the launches."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    call()
    torch.cuda.synchronize()
    torch.cuda._sleep(200_000_000)
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000 / repeats


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """All measurements and their tables."""
    threads = torch.get_num_threads()
    num_batches = options.images // BATCH_SIZE
    cases = [("masks", masks, 1, num_batches), ("noise", noise, 1, num_batches)]
    if threads > 1:
        cases.append(("masks", masks, threads, max(1, num_batches // 8)))
    rows, found = [], {}
    for name, make, case_threads, count in cases:
        begin_trial(case_threads, 1.0)
        batches = [make(BATCH_SIZE, seed) for seed in range(count)]
        seconds = cpu_seconds(batches, options.rounds)
        per_image = {way: None if s is None else 1e3 * s / (count * BATCH_SIZE) for way, s in seconds.items()}
        ratios = {way: None if ms is None else ms / (per_image["ours"] or 1) for way, ms in per_image.items()}
        label = f"{name}, {case_threads} thread{'s' if case_threads > 1 else ''}"
        rows.append([label, *(cell(per_image[way], ratios[way]) for way in WAYS)])
        print(" | ".join(rows[-1]), flush=True)
        if not found:
            found = {f"cpu_ratio_{way.replace(' ', '_')}": r for way, r in ratios.items() if way != "ours"}
    begin_trial(threads if torch.cuda.is_available() else 1, 1.0)  # a trial on a CPU has one thread
    found["edge_error"] = edge_error(options.edge_images)
    absent = " torchmetrics is not installed here." if not HAS_TORCHMETRICS else ""
    lines = table(["CPU ms an image", *(f"{way}, {1024 if way == 'ours' else 100}" for way in WAYS)], rows)
    lines += ["", f"Edge error: {found['edge_error']:.1e}.{absent}", ""]
    shares = []
    for name, changes in MODELS.items():
        total_s, curve_s = validation_seconds(changes, options.validation_images, options.validation_batch)
        images = options.validation_images
        shares.append(
            [name, f"{1e3 * total_s / images:.3f}", f"{1e3 * curve_s / images:.4f}", f"{curve_s / total_s:.3%}"]
        )
        found.setdefault("share_of_validation", curve_s / total_s)
    lines += table([f"{SIDE} px, {device_name()}", "validation, ms an image", "the curve", "share"], shares)
    return found, lines


def cell(milliseconds: float | None, ratio: float | None) -> str:
    """A time, and how many times ours it is."""
    if milliseconds is None or ratio is None:
        return "-"
    return f"{milliseconds:.3f}" if ratio == 1 else f"{milliseconds:.2f} ({ratio:.0f} times)"


def main() -> None:
    """Measures, prints both tables and writes the page; the last line is one JSON object."""
    is_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: few images, and no page.")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--validation-images", type=int, default=2048 if is_cuda else 32)
    parser.add_argument("--validation-batch", type=int, default=32 if is_cuda else 8)
    options = parser.parse_args()
    options.edge_images = 16
    if options.quick:
        options.images, options.rounds, options.edge_images = 32, 2, 4
        options.validation_images = 64 if is_cuda else 8
        options.validation_batch = 32 if is_cuda else 4
    found, lines = measure(options)
    print("\n".join(lines))
    if not options.quick:
        about = (__doc__ or "").split("NAME=threshold")[-1]
        print(
            f"wrote {write_page('threshold', 'What the threshold curve costs', about, lines, 'numpy', 'torchmetrics')}"
        )
    rounded = {key: None if value is None else float(f"{value:.4g}") for key, value in found.items()}
    print(json.dumps({**rounded, "device": device_name()}))


if __name__ == "__main__":
    main()
