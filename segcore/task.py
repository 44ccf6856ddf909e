"""What a mask means: which labels its pixels can have, and how a model's outputs are read as such labels.

Everything that trains, scores, decides or draws asks the task, and nothing else knows that there is one label and a
sigmoid. There is one task today, the foreground of binary masks. A task of several classes, of overlapping labels or
with pixels that do not count is another class with the members of `Task`, chosen in `task_of`.

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
    """Something that a pixel of a mask can be.

    Attributes:
        value: Its byte in a decoded mask.
        name: For people, and for the card.
        color: How it is drawn over an image.
        written: Its byte in a mask file that is predicted.
    """

    value: int
    name: str
    color: Color
    written: int


@dataclass(frozen=True)
class Counts:
    """What a score of one class is made of, in pixels.

    Attributes:
        true_positive: Predicted, and there.
        predicted: Predicted, there or not.
        positive: There, predicted or not.
    """

    true_positive: int
    predicted: int
    positive: int

    @property
    def false_positive(self) -> int:
        """Predicted, and not there."""
        return self.predicted - self.true_positive

    @property
    def false_negative(self) -> int:
        """There, and not predicted."""
        return self.positive - self.true_positive


@dataclass(frozen=True)
class Layer:
    """Some pixels of an image, and how they are drawn: one part of what a prediction is, compared with its mask.

    Attributes:
        name: For a legend.
        color: Of these pixels.
        where: `(H, W) bool`.
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
    """What masks mean, for all who train, score, decide and draw."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """All that a pixel of a mask can be, by value."""

    @property
    def classes(self) -> tuple[Label, ...]:
        """Those that are scored, in the order of `counts`."""

    @property
    def num_outputs(self) -> int:
        """Channels of the model's logits."""

    def record(self) -> TaskRecord:
        """What the card says of the task."""

    def targets(self, masks: Tensor) -> Tensor:
        """What a loss compares logits with.

        Args:
            masks: `(N, 1, H, W) uint8`, as they were decoded, after augmentation; on any device.
        """

    def probs(self, logits: Tensor) -> Tensor:
        """Probabilities `(N, C, H, W)` of logits of the same shape and type."""

    def decide(self, probs: npt.NDArray[np.floating], threshold: float) -> ByteArray:
        """The labels that probabilities come to.

        Args:
            probs: `(..., C, H, W)` in [0, 1].
            threshold: In [0, 1].

        Returns:
            `(..., H, W) uint8`, as masks are.
        """

    def counts(self, preds: ByteArray, masks: ByteArray) -> tuple[Counts, ...]:
        """Pixels of each of `classes` in a prediction and its mask, of one shape."""

    def is_class(self, masks: npt.NDArray[np.number], label: Label) -> npt.NDArray[np.bool_]:
        """Where masks (or predictions) hold one of `classes`, of their shape."""

    def written(self, masks: npt.NDArray[np.number]) -> ByteArray:
        """Masks with the bytes of a mask file, as `Label.written` says."""

    def drawn(self, mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """A mask `(H, W)` alone, in layers over its image."""

    def compared(self, pred: npt.NDArray[np.number], mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """A prediction against its mask, `(H, W)` both, in layers over their image that do not overlap."""


class BinaryTask:
    """Foreground and background: one logit a pixel, a sigmoid, and a threshold from which a pixel is foreground."""

    labels = (Label(0, "background", (0, 0, 0), 0), Label(1, "foreground", FOUND, 255))
    classes = labels[1:]
    num_outputs = 1

    def record(self) -> TaskRecord:
        """What the card says of the task."""
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
        """1 where the one probability reaches the threshold, itself included; NaN reaches none.

        A threshold meets float32 probabilities as the nearest float32, as everywhere in torch and numpy.
        """
        return (probs[..., 0, :, :] >= threshold).astype(np.uint8)

    def counts(self, preds: ByteArray, masks: ByteArray) -> tuple[Counts, ...]:
        """Pixels of foreground; anything above 0 is."""
        pred, mask = preds > 0, masks > 0
        return (Counts(int((pred & mask).sum()), int(pred.sum()), int(mask.sum())),)

    def is_class(self, masks: npt.NDArray[np.number], label: Label) -> npt.NDArray[np.bool_]:
        """Where masks are foreground; anything above 0 is."""
        return np.asarray(masks > 0)

    def written(self, masks: npt.NDArray[np.number]) -> ByteArray:
        """0 for background, 255 for foreground."""
        return np.where(masks > 0, self.labels[1].written, self.labels[0].written).astype(np.uint8)

    def drawn(self, mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """The foreground."""
        foreground = self.classes[0]
        return (Layer(foreground.name, foreground.color, self.is_class(mask, foreground)),)

    def compared(self, pred: npt.NDArray[np.number], mask: npt.NDArray[np.number]) -> tuple[Layer, ...]:
        """Foreground that was found, that was missed, and that is none."""
        inside, predicted = mask > 0, pred > 0
        return (
            Layer("found", FOUND, np.asarray(inside & predicted)),
            Layer("missed", MISSED, np.asarray(inside & ~predicted)),
            Layer("wrong", WRONG, np.asarray(~inside & predicted)),
        )


BINARY: Task = BinaryTask()

TASKS: Sequence[Task] = (BINARY,)
"""Every kind of task that there is."""


def task_of(config: TrainConfig) -> Task:
    """The task of a config: binary, as long as `model.num_classes` can be nothing but 1."""
    return next(task for task in TASKS if task.num_outputs == config.model.num_classes)
