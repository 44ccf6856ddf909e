"""Probes of the model's input and output, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from segcore.gate.evidence import Evidence, Probe
from segcore.gate.report import Finding
from segcore.losses.mix import build_loss

_FEW = 4
_STEEP = 64.0  # a power of two: undone without rounding


def probe_normalisation(evidence: Evidence) -> Iterator[Finding]:
    """The encoder's input must be the decoded image, normalised once, with the encoder's own mean and std."""
    pipeline, batch = evidence.pipeline, evidence.batch
    entered = _encoder_input(evidence, batch.images[:_FEW])
    if entered is None:
        return
    decoded = np.stack([pipeline.cache.image(int(index)) for index in batch.indices[:_FEW]]).transpose(0, 3, 1, 2)
    entered = entered[:, :, : decoded.shape[2], : decoded.shape[3]]
    if entered.shape != decoded.shape:
        return
    raw = torch.from_numpy(decoded.astype(np.float32) / 255.0)
    own_mean, own_std = (torch.tensor(getattr(pipeline.encoder, name)) for name in ("mean", "std"))
    slopes, offsets, fits = _lines(raw, entered)
    key = "model.encoder"
    if float(fits.min()) < 0.98:
        if float(_lines(raw.flip(1), entered)[2].min()) > 0.98:
            yield Finding(
                "channels_swapped", "error", "the encoder gets blue, green, red instead of red, green, blue",
                {"correlation with the file": float(fits.min())},
                "convert with cv2.COLOR_BGR2RGB where they are read",
            )  # fmt: skip
        return
    numbers: dict[str, float | int | str] = {
        "mean of what enters": float(entered.mean()), "its deviation": float(entered.std()),
        "encoder's mean": _rgb(own_mean), "encoder's std": _rgb(own_std),
    }  # fmt: skip
    mean, std = -offsets / slopes, 1.0 / slopes  # of the single normalisation that explains the input
    if torch.allclose(mean, own_mean, atol=0.02) and torch.allclose(std, own_std, rtol=0.05):
        return
    centre, width = own_mean.view(3, 1, 1), own_std.view(3, 1, 1)
    for unit in (1.0, 255.0):  # the second normalisation may have expected bytes
        if _is_close((((raw - centre) / width) / unit - centre) / width, entered):
            yield Finding(
                "normalised_twice", "error", "the images are normalised twice before they enter the encoder", numbers,
                "leave them as bytes where they are read: the model normalises them itself",
            )  # fmt: skip
            return
    is_pretrained = pipeline.config.model.encoder_weights != "none"
    yield Finding(
        "wrong_normalisation", "error" if is_pretrained else "warning",
        "the images are not normalised with the numbers of their encoder",
        {**numbers, "mean in use": _rgb(mean), "std in use": _rgb(std)},
        f"use mean and std of {key}={pipeline.config.model.encoder}"
        + ("" if is_pretrained else "; without pretrained weights this costs little"),
    )  # fmt: skip


def probe_eval_mode(evidence: Evidence) -> Iterator[Finding]:
    """Two passes over the same images in eval mode must agree."""
    images = evidence.batch.images[:_FEW]
    first, second = evidence.logits(images), evidence.logits(images)
    differ = float((first - second).abs().max())
    scale = float(first.std())
    if differ > 1e-3 * max(scale, 1e-3):
        yield Finding(
            "dropout_left_on", "error", "the model answers by chance in eval mode: dropout, or the like, is left on",
            {"largest difference of two passes": differ, "deviation of the logits": scale},
            "call model.eval() before validation, and pass training=self.training to functional dropout "
            "(model.dropout)",
        )  # fmt: skip


def probe_double_sigmoid(evidence: Evidence) -> Iterator[Finding]:
    """The model must give logits, and the loss must take logits."""
    pipeline = evidence.pipeline
    images = evidence.batch.images[:_FEW]
    logits = evidence.logits(images)
    if float(logits.min()) >= 0.0 and float(logits.max()) <= 1.0:
        with _steeper(pipeline.model):
            steep = evidence.logits(images)
        if float(steep.min()) >= 0.0 and float(steep.max()) <= 1.0:
            yield Finding(
                "double_sigmoid", "error",
                "the model applies a sigmoid, and so do the loss and the metric: no probability can leave 0.5 to 0.73",
                {"lowest output": float(steep.min()), "highest": float(steep.max())},
                "return logits from the model",
            )  # fmt: skip
            return
    reference = build_loss(pipeline.config.loss).to(pipeline.step.device)
    generator = torch.Generator().manual_seed(0)
    task = pipeline.task
    z = (4.0 * torch.randn(2, task.num_outputs, 16, 16, generator=generator)).to(pipeline.step.device)
    masks = (torch.rand(2, 1, 16, 16, generator=generator) > 0.6).to(z.device).byte()
    targets = task.targets(masks).float()
    with torch.no_grad():
        found = float(pipeline.step.loss_fn(z, targets))
        once, twice = float(reference(z, targets)), float(reference(task.probs(z), targets))
    if abs(found - twice) < 1e-4 * max(1.0, twice) < abs(found - once):
        yield Finding(
            "double_sigmoid", "error", "the loss gets probabilities where it takes logits: a sigmoid is applied twice",
            {"loss of random logits": found, "as it should be": once, "with two sigmoids": twice},
            "give the loss the model's logits",
        )  # fmt: skip


def _encoder_input(evidence: Evidence, images: Tensor) -> Tensor | None:
    """The encoder's input, `(n, 3, h, w) float32`, or None where it is not called with three channels."""
    seen: list[Tensor] = []
    hook = evidence.pipeline.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        evidence.logits(images)
    finally:
        hook.remove()
    return seen[0].detach().float().cpu() if seen and seen[0].shape[1] == 3 else None


def _lines(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, offset and correlation of `y` over `x`, `(3,) float32` each, one value per channel."""
    x, y = (values.double().transpose(0, 1).flatten(1) for values in (x, y))
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    covariance = ((x - x_mean) * (y - y_mean)).mean(1)
    variance = x.var(1, correction=0).clamp_min(1e-12)
    slopes = covariance / variance
    fits = covariance / (variance * y.var(1, correction=0)).sqrt().clamp_min(1e-12)
    safe = torch.where(slopes.abs() > 1e-12, slopes, torch.full_like(slopes, 1e-12))
    return safe.float(), (y_mean - slopes[:, None] * x_mean)[:, 0].float(), fits.float()


def _is_close(expected: Tensor, found: Tensor) -> bool:
    scale = float(expected.std()) + 1e-6
    return float((expected - found).abs().mean()) < 0.1 * scale


class _steeper:  # noqa: N801 - used as a statement
    """Scales up the last layer's weights temporarily: a bounded output stays bounded, logits do not."""

    def __init__(self, model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.ConvTranspose2d)]
        self._weights = [layers[-1].weight] if layers else []

    def __enter__(self) -> None:
        self._scale(_STEEP)

    def __exit__(self, *_: object) -> None:
        self._scale(1.0 / _STEEP)

    @torch.no_grad()
    def _scale(self, factor: float) -> None:
        for weight in self._weights:
            weight.mul_(factor)


def _rgb(values: Tensor) -> str:
    return "/".join(f"{value:.3g}" for value in values.tolist())


MODEL_PROBES: dict[str, Probe] = {
    "normalisation": probe_normalisation,
    "eval mode": probe_eval_mode,
    "double sigmoid": probe_double_sigmoid,
}
"""Probes by what they examine, in the order in which they run."""
