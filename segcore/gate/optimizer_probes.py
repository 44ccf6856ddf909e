"""Probes of what a training step reaches: learning rates, frozen layers, gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from segcore.gate.evidence import Evidence, Probe, shown
from segcore.gate.report import Finding


def probe_learning_rate_zero(evidence: Evidence) -> Iterator[Finding]:
    """At least one parameter group must have a learning rate above 0."""
    groups = evidence.pipeline.step.optimizer.param_groups
    rates = [float(group.get("peak_lr", group["lr"])) for group in groups]
    if not any(rates):
        yield Finding(
            "lr_zero", "error", "the learning rate is 0, so nothing is trained",
            {"groups": len(rates), "largest rate": max(rates, default=0.0)}, "set optimizer.lr, e.g. to 1e-3",
        )  # fmt: skip


def probe_frozen(evidence: Evidence) -> Iterator[Finding]:
    """Every layer must be trained, except an encoder that the config freezes."""
    pipeline = evidence.pipeline
    groups = pipeline.step.optimizer.param_groups
    rates = {id(p): float(group.get("peak_lr", group["lr"])) for group in groups for p in group["params"]}
    if not any(rates.values()):
        return
    meant = set[int]()
    if pipeline.config.optimizer.encoder_lr_factor == 0.0 and getattr(pipeline.encoder, "is_timm", False):
        meant = {id(p) for p in pipeline.encoder.parameters()}
    named = [(name, p) for name, p in pipeline.model.named_parameters() if id(p) not in meant]
    frozen = [(name, p) for name, p in named if not p.requires_grad or rates.get(id(p), 0.0) == 0.0]
    if frozen:
        parts = list(dict.fromkeys(_part_of(name) for name, _ in frozen))
        yield Finding(
            "frozen_layers", "error", f"layers are not trained: {shown(parts)}",
            {
                "parameters": sum(p.numel() for _, p in frozen), "of": sum(p.numel() for _, p in named),
                "without gradient": sum(not p.requires_grad for _, p in frozen),
                "not in the optimizer": sum(id(p) not in rates for _, p in frozen),
            },
            "unfreeze them and give them to the optimizer (optimizer.encoder_lr_factor: 0 is what freezes an encoder "
            "on purpose)",
        )  # fmt: skip


def probe_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Each part of the model used in the forward pass must get a finite gradient that is not all zero."""
    pipeline = evidence.pipeline
    step, model = pipeline.step, pipeline.model
    used = set[int]()
    hooks = [  # an unused layer is not an error
        module.register_forward_hook(lambda module, *_: used.update(id(p) for p in module.parameters(recurse=False)))
        for module in model.modules()
    ]
    model.train()
    try:
        for images, targets in step.parts(evidence.batch):
            loss = step.loss_of(images, targets)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    norms: dict[str, list[float]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad and id(p) in used:
            norms.setdefault(_part_of(name), []).append(0.0 if p.grad is None else float(p.grad.norm()))
    step.optimizer.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)
    broken = [part for part, found in norms.items() if not np.isfinite(found).all()]
    dead = [part for part, found in norms.items() if not any(found)]
    if broken:
        yield Finding(
            "gradient_not_finite", "error", f"the gradient is not finite in {shown(broken)}",
            {"parts": len(broken), "of": len(norms), "loss": float(loss.detach())},
            "look for divisions by 0 and logarithms of 0 in the loss (loss.smooth), or set train.precision: fp32",
        )  # fmt: skip
    elif dead:
        yield Finding(
            "dead_gradient", "error", f"no gradient reaches {shown(dead)}",
            {"parts without": len(dead), "of": len(norms), "largest gradient elsewhere": _largest(norms)},
            "look for detach(), no_grad(), rounding or a saturated activation between these layers and the loss",
        )  # fmt: skip


def _part_of(parameter_name: str) -> str:
    """The part of a model that a parameter belongs to: `decoder.stages.1` for `decoder.stages.1.block.conv1.weight`."""
    return ".".join(parameter_name.split(".")[:-1][:3])


def _largest(norms: Mapping[str, list[float]]) -> float:
    return max((value for found in norms.values() for value in found), default=0.0)


OPTIMIZER_PROBES: dict[str, Probe] = {
    "learning rate of 0": probe_learning_rate_zero,
    "frozen layers": probe_frozen,
    "gradient": probe_gradient,
}
"""Probes by what they examine, in the order in which they run."""
