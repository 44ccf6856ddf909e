"""What every task keeps to, and what the binary one comes to by hand."""

import json

import numpy as np
import pytest
import torch

from segcore.config import LossConfig, ModelConfig, TrainConfig
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.scores.threshold_curve import curve_of
from segcore.task import BINARY, FOUND, MISSED, TASKS, WRONG, Counts, Task, task_of

HW = (4, 6)


@pytest.fixture(params=TASKS, ids=lambda task: type(task).__name__)
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


def masks_of(task: Task, count: int = 3) -> np.ndarray:
    """Masks in which every label occurs."""
    values = [label.value for label in task.labels]
    return np.resize(np.array(values, np.uint8), (count, *HW))


def logits_of(task: Task, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(count, task.num_outputs, *HW, generator=generator)


def test_labels_can_be_told_apart(task: Task) -> None:
    for of in ("value", "name", "written"):
        found = [getattr(label, of) for label in task.labels]
        assert len(set(found)) == len(found) >= 2
    assert set(task.classes) <= set(task.labels)
    assert task.classes
    assert all(0 <= byte <= 255 for label in task.labels for byte in (label.value, label.written, *label.color))


def test_the_card_says_the_classes(task: Task) -> None:
    record = task.record()
    assert record["classes"] == [label.name for label in task.classes]
    assert json.loads(json.dumps(record)) == record


def test_probabilities_have_the_shape_of_logits_and_lie_between_0_and_1(task: Task) -> None:
    some = logits_of(task)
    for logits in (some, some.half(), 1000 * some):
        probs = task.probs(logits)
        assert (probs.shape, probs.dtype) == (logits.shape, logits.dtype)
        assert 0.0 <= probs.min() < probs.max() <= 1.0


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_a_decision_is_a_mask(task: Task, threshold: float) -> None:
    probs = task.probs(logits_of(task)).numpy()
    preds = task.decide(probs, threshold)
    assert (preds.shape, preds.dtype) == ((3, *HW), np.uint8)
    assert set(np.unique(preds)) <= {label.value for label in task.labels}
    assert np.array_equal(task.decide(probs[1], threshold), preds[1]), "an image alone, without the axis of images"


def test_targets_are_what_the_losses_take(task: Task) -> None:
    logits = logits_of(task).requires_grad_()
    targets = task.targets(torch.from_numpy(masks_of(task))[:, None])
    loss = build_loss(LossConfig())(logits, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_mask_predicted_as_it_is_has_no_error(task: Task) -> None:
    (mask,) = masks_of(task, 1)
    counts = task.counts(mask, mask)
    assert len(counts) == len(task.classes)
    for label, found in zip(task.classes, counts, strict=True):
        pixels = int(task.is_class(mask, label).sum())
        assert found == Counts(pixels, pixels, pixels)
        assert pixels > 0
        assert (found.false_positive, found.false_negative) == (0, 0)


def test_a_written_mask_has_the_bytes_of_its_labels(task: Task) -> None:
    (mask,) = masks_of(task, 1)
    written = task.written(mask)
    assert written.dtype == np.uint8
    for label in task.labels:
        assert set(written[mask == label.value]) == {label.written}


def test_no_pixel_is_drawn_twice(task: Task) -> None:
    mask, pred = masks_of(task, 1)[0], masks_of(task, 1)[0][:, ::-1]
    for layers in (task.drawn(mask), task.compared(pred, mask)):
        assert np.sum([layer.where for layer in layers], axis=0).max() == 1


def test_the_curve_counts_what_the_decision_gives(task: Task) -> None:
    """At every threshold that is asked for, on edges and off them."""
    probs, masks = task.probs(logits_of(task)), masks_of(task)
    for threshold in (0.0, 0.25, 0.3, 0.7, 1.0):
        curve = curve_of(task, threshold=threshold)
        curve.update(probs, torch.from_numpy(masks)[:, None])
        preds = task.decide(probs.numpy(), threshold)
        counts = [task.counts(pred, mask)[0] for pred, mask in zip(preds, masks, strict=True)]
        expected = [c.true_positive / (c.predicted + c.positive - c.true_positive) for c in counts]
        assert curve.compute().per_image_iou(threshold).tolist() == expected


def test_the_config_gives_the_task_and_the_model_has_its_outputs(task: Task) -> None:
    config = TrainConfig(model=ModelConfig(base_channels=2, depth=1))
    assert task_of(config) is BINARY
    assert build_model(config.model).segmentation_head.out_channels == task_of(config).num_outputs


def test_binary_by_hand() -> None:
    """Logits of -2, 0, 2: probabilities of 0.119, 0.5, 0.881, of which the last two reach 0.5."""
    probs = BINARY.probs(torch.tensor([[[[-2.0, 0.0, 2.0]]]])).numpy()
    assert probs[0, 0, 0].tolist() == pytest.approx([0.1192029, 0.5, 0.8807971])
    (pred,) = BINARY.decide(probs, 0.5)
    assert pred.tolist() == [[0, 1, 1]]
    mask = np.array([[1, 1, 0]], np.uint8)
    (counts,) = BINARY.counts(pred, mask)
    assert counts == Counts(true_positive=1, predicted=2, positive=2)
    assert (counts.false_positive, counts.false_negative) == (1, 1)
    assert BINARY.written(pred).tolist() == [[0, 255, 255]]
    layers = {layer.name: (layer.color, layer.where.tolist()) for layer in BINARY.compared(pred, mask)}
    assert layers == {
        "found": (FOUND, [[False, True, False]]),
        "missed": (MISSED, [[True, False, False]]),
        "wrong": (WRONG, [[False, False, True]]),
    }
    (foreground,) = BINARY.drawn(mask)
    assert (foreground.name, foreground.where.tolist()) == ("foreground", [[True, True, False]])


@pytest.mark.parametrize(
    ("pred", "mask", "expected"),
    [(0, 0, (0, 0, 0)), (1, 1, (24, 24, 24)), (1, 0, (0, 24, 0)), (0, 1, (0, 0, 24))],
    ids=["both empty", "both full", "full on empty", "empty on full"],
)
def test_binary_counts_of_empty_and_full(pred: int, mask: int, expected: tuple[int, int, int]) -> None:
    (counts,) = BINARY.counts(np.full(HW, pred, np.uint8), np.full(HW, mask, np.uint8))
    assert (counts.true_positive, counts.predicted, counts.positive) == expected


def test_the_binary_decision_at_its_ends() -> None:
    """Threshold 0 takes everything, 1 only what is certain, and NaN is never foreground."""
    probs = np.array([[[0.0, 0.5, 1.0, np.nan]]], np.float32)
    assert BINARY.decide(probs, 0.0).tolist() == [[1, 1, 1, 0]]
    assert BINARY.decide(probs, 1.0).tolist() == [[0, 0, 1, 0]]
    third = np.array([[[np.float32(1 / 3)]]])
    assert BINARY.decide(third, 1 / 3).tolist() == [[1]], "a threshold meets probabilities as the nearest float32"


def test_binary_targets_are_the_masks_themselves() -> None:
    """Nothing is copied in a training step."""
    masks = torch.zeros(2, 1, *HW, dtype=torch.uint8)
    assert BINARY.targets(masks) is masks
