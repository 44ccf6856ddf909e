"""What a mask means: which labels its pixels can have, and how a model's outputs become such labels.

Everything that trains, scores, decides or draws uses the task; nothing else assumes one label and a sigmoid. There is
one task today, the foreground of binary masks. A task with several classes, overlapping labels or ignored pixels would
be another class with the members of `Task`, chosen in `task_of`.

Shapes: a mask is `(H, W) uint8`, each byte one of `Task.labels`; `C` is `Task.num_outputs`. Leading axes are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from segcore.config import TrainConfig

ByteArray = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

FOUND: Color = (46, 160, 67)
MISSED: Color = (31, 119, 216)
WRONG: Color = (220, 50, 47)


@dataclass(frozen=True)
class Label:
    """A label that a pixel of a mask can have.

    Attributes:
        value: Its byte in a decoded mask.
        name: Its name for people, and in the card.
        color: Its color when drawn over an image.
        written: Its byte in a predicted mask file.
    """

    value: int
    name: str
    color: Color
    written: int


@dataclass(frozen=True)
class Counts:
    """Pixel counts of one class, from which its scores are computed.

    Attributes:
        true_positive: Pixels of the class in both prediction and mask.
        predicted: Pixels of the class in the prediction.
        positive: Pixels of the class in the mask.
    """

    true_positive: int
    predicted: int
    positive: int

    @property
    def false_positive(self) -> int:
        """Pixels of the class in the prediction but not in the mask."""
        return self.predicted - self.true_positive

    @property
    def false_negative(self) -> int:
        """Pixels of the class in the mask but not in the prediction."""
        return self.positive - self.true_positive


@dataclass(frozen=True)
class Layer:
    """Some pixels of an image and how they are drawn, such as those where prediction and mask agree.

    Attributes:
        name: Name for a legend.
        color: Color of these pixels.
        where: `(H, W) bool`, True at these pixels.
    """

    name: str
    color: Color
    where: npt.NDArray[np.bool_]


class TaskRecord(TypedDict):
    """The `task` of a sealed model's card."""

    kind: str
    classes: list[str]
    output: str


class Task(Protocol):
    """What masks mean, for everything that trains, scores, decides and draws."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels that a pixel of a mask can have, ordered by value."""

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels that are scored, in the order of `counts`."""

    @property
    def num_outputs(self) -> int:
        """Number of channels of the model's logits."""

    def record(self) -> TaskRecord:
        """The task as the card describes it."""

    def targets(self, masks: Tensor) -> Tensor:
        """The targets that a loss compares logits with.

        Args:
            masks: `(N, 1, H, W) uint8`, decoded and augmented masks on any device.
        """

    def probs(self, logits: Tensor) -> Tensor:
        """Probabilities `(N, C, H, W)` of logits of the same shape and type."""

    def decide(self, probs: npt.NDArray[np.floating], threshold: float) -> ByteArray:
        """The labels decided from probabilities.

        Args:
            probs: `(..., C, H, W)` in [0, 1].
            threshold: In [0, 1].

        Returns:
            `(..., H, W) uint8`, like masks.
        """

    def counts(self, preds: ByteArray, masks: ByteArray) -> tuple[Counts, ...]:
        """Pixel counts of each of `classes` in a prediction and its mask, which have the same shape."""

    def is_class(self, masks: npt.NDArray[np.number], label: Label) -> npt.NDArray[np.bool_]:
        """True where masks (or predictions) hold one of `classes`; same shape as `masks`."""

    def written(self, masks: npt.NDArray[np.number]) -> ByteArray:
        """Masks with the bytes of a mask file, see `Label.written`."""

    def drawn(self, mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """The layers that draw one mask `(H, W)` over its image."""

    def compared(self, pred: npt.NDArray[np.number], mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """Non-overlapping layers that compare a prediction with its mask, both `(H, W)`, over their image."""


class BinaryTask:
    """Foreground and background: one logit per pixel, a sigmoid, and a threshold from which a pixel is foreground."""

    labels = (Label(0, "background", (0, 0, 0), 0), Label(1, "foreground", FOUND, 255))
    classes = labels[1:]
    num_outputs = 1

    def record(self) -> TaskRecord:
        """The task as the card describes it."""
        return {
            "kind": "binary segmentation",
            "classes": [label.name for label in self.classes],
            "output": "probability = sigmoid(logits)",
        }

    def targets(self, masks: Tensor) -> Tensor:
        """The masks themselves, `(N, 1, H, W) uint8` of 0 and 1."""
        return masks

    def probs(self, logits: Tensor) -> Tensor:
        """Probability of foreground, `(N, 1, H, W)`."""
        return logits.sigmoid()

    def decide(self, probs: npt.NDArray[np.floating], threshold: float) -> ByteArray:
        """1 where the probability is at or above the threshold, else 0; NaN gives 0.

        A threshold is compared with float32 probabilities as the nearest float32, as usual in torch and numpy.
        """
        return (probs[..., 0, :, :] >= threshold).astype(np.uint8)

    def counts(self, preds: ByteArray, masks: ByteArray) -> tuple[Counts, ...]:
        """Pixel counts of the foreground, which is anything above 0."""
        pred, mask = preds > 0, masks > 0
        return (Counts(int((pred & mask).sum()), int(pred.sum()), int(mask.sum())),)

    def is_class(self, masks: npt.NDArray[np.number], label: Label) -> npt.NDArray[np.bool_]:
        """True where masks are foreground, which is anything above 0."""
        return np.asarray(masks > 0)

    def written(self, masks: npt.NDArray[np.number]) -> ByteArray:
        """0 for background, 255 for foreground."""
        return np.where(masks > 0, self.labels[1].written, self.labels[0].written).astype(np.uint8)

    def drawn(self, mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """One layer: the foreground."""
        foreground = self.classes[0]
        return (Layer(foreground.name, foreground.color, self.is_class(mask, foreground)),)

    def compared(self, pred: npt.NDArray[np.number], mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """Three layers: foreground that was found, missed, and wrongly predicted."""
        inside, predicted = mask > 0, pred > 0
        return (
            Layer("found", FOUND, np.asarray(inside & predicted)),
            Layer("missed", MISSED, np.asarray(inside & ~predicted)),
            Layer("wrong", WRONG, np.asarray(~inside & predicted)),
        )


BINARY: Task = BinaryTask()

TASKS: Sequence[Task] = (BINARY,)
"""Every supported task."""


def task_of(config: TrainConfig) -> Task:
    """The task of a config; always binary, as `model.num_classes` can only be 1."""
    return next(task for task in TASKS if task.num_outputs == config.model.num_classes)
