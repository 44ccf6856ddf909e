"""What the gate found and measured: plain records that can be printed, stored and tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or looks wrong.

    Attributes:
        code: Its identifier, such as `masks_0_255`.
        severity: `error`: certain, training would be wasted; `warning`: worth a look.
        message: One sentence that says what is wrong.
        evidence: The numbers that show it, by name.
        advice: What to do about it, with the dotted config key where there is one.
    """

    code: str
    severity: Severity
    message: str
    evidence: Mapping[str, float | int | str]
    advice: str

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {_number(value)}" for name, value in self.evidence.items())
        return f"{self.code}: {self.message} ({shown}); {self.advice}"


@dataclass(frozen=True)
class Figures:
    """What overfitting one batch measured.

    Attributes:
        num_images: Number of images in the batch.
        height: Height of these images in pixels; the gate shrinks large ones.
        width: Width of these images in pixels.
        initial_loss: Loss before the first step.
        final_loss: Mean loss of the last three steps.
        threshold: The configured threshold; for `auto` the best one of the batch's curve.
        iou_at_threshold: Mean IoU of the batch's images at `threshold`.
        best_threshold: Threshold at which the batch's curve is highest.
        best_iou: Mean IoU at `best_threshold`.
        num_steps: Optimizer steps taken.
        train_s: Seconds that the steps took.
        total_s: Seconds of the whole gate.
        ended_by: `overfitted`, `steps`, `time` or `diverged`.
    """

    num_images: int
    height: int
    width: int
    initial_loss: float
    final_loss: float
    threshold: float
    iou_at_threshold: float
    best_threshold: float
    best_iou: float
    num_steps: int
    train_s: float
    total_s: float
    ended_by: str


@dataclass(frozen=True)
class GateReport:
    """The gate's verdict.

    Attributes:
        findings: Errors first.
        figures: What overfitting one batch measured.
        picture: `(H, W, 3) uint8`: images, masks, probabilities and predictions of the batch.
    """

    findings: tuple[Finding, ...]
    figures: Figures
    picture: npt.NDArray[np.uint8] = field(repr=False)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make training a waste."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings to look at."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """Findings and figures as plain JSON values; a number that is not finite becomes a string."""
        findings = [
            {**vars(finding), "evidence": {name: _json(value) for name, value in finding.evidence.items()}}
            for finding in self.findings
        ]
        figures = {name: _json(value) for name, value in vars(self.figures).items()}
        return {"passed": not self.errors, "findings": findings, "figures": figures}

    def write_picture(self, path: Path) -> None:
        """Write the picture as a PNG."""
        from PIL import Image

        Image.fromarray(self.picture).save(path, format="PNG")


def _number(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else str(value)
    return value
