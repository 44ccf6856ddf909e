"""The batch as a picture: its images, masks, probabilities and predictions, one column per image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segcore.task import ByteArray, Task

CELL = 128
_GAP = 4
_LABELS = 130
_TITLE = 52
_BACKGROUND, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def draw_picture(
    task: Task,
    images: npt.NDArray[np.generic],
    targets: npt.NDArray[np.number],
    probs: npt.NDArray[np.float32],
    threshold: float,
    ious: npt.NDArray[np.float64],
    title: str,
) -> ByteArray:
    """Draw a batch as an `(H, W, 3) uint8` picture.

    In the last row, correct foreground is green, missed foreground blue and false foreground red (`Task.compared`).

    Args:
        task: What masks and probabilities mean.
        images: `(N, 3, h, w) uint8`; another dtype is stretched to the range of bytes.
        targets: `(N, h, w)`, the masks.
        probs: `(N, C, h, w) float32` in [0, 1].
        threshold: Threshold of the predictions in the last row, in [0, 1].
        ious: `(N,) float64`, IoU of each prediction.
        title: One line of text above the picture.
    """
    count, (height, width) = len(images), targets.shape[1:]
    scale = CELL / max(height, width)
    cell_h, cell_w = max(1, round(height * scale)), max(1, round(width * scale))
    labels = ("image", "mask", "probability", f"prediction\nat {threshold:.3f}")
    sheet = Image.new(
        "RGB", (_LABELS + max(count * (cell_w + _GAP), 320) + _GAP, _TITLE + len(labels) * (cell_h + _GAP) + 24),
        _BACKGROUND,
    )  # fmt: skip
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    draw.text((_GAP * 2, 6), title, _INK, font)
    x = _GAP * 2
    preds = task.decide(probs, threshold)
    for layer in task.compared(preds[0], targets[0]):
        draw.rectangle((x, 33, x + 10, 43), layer.color)
        draw.text((x + 15, 30), layer.name, _FAINT, small)
        x += 70
    for row, label in enumerate(labels):
        draw.multiline_text((_GAP * 2, _TITLE + row * (cell_h + _GAP) + cell_h // 2 - 10), label, _INK, font)
    pictures = _as_bytes(images)
    for column in range(count):
        verdict = np.zeros((height, width, 3), np.uint8)
        for layer in task.compared(preds[column], targets[column]):
            verdict[layer.where] = layer.color
        grey = np.rint(probs[column].max(axis=0) * 255).astype(np.uint8)  # confidence in the most likely scored class
        cells = (pictures[column], task.written(targets[column]), grey, verdict)
        x = _LABELS + column * (cell_w + _GAP)
        for row, cell in enumerate(cells):
            shown = Image.fromarray(cell).convert("RGB").resize((cell_w, cell_h), Image.Resampling.NEAREST)
            sheet.paste(shown, (x, _TITLE + row * (cell_h + _GAP)))
        draw.text((x, _TITLE + len(cells) * (cell_h + _GAP)), f"IoU {ious[column]:.3f}", _FAINT, small)
    return np.asarray(sheet)


def _as_bytes(images: npt.NDArray[np.generic]) -> ByteArray:
    """`(N, h, w, 3) uint8`."""
    rows = images.transpose(0, 2, 3, 1)
    if rows.dtype == np.uint8:
        return rows.astype(np.uint8)
    values = np.nan_to_num(rows.astype(np.float32))
    low, high = float(values.min()), float(values.max())
    stretched: ByteArray = np.rint((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return stretched
