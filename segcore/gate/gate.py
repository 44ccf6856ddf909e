"""The gate: overfit one batch with a config's own pipeline before anything slow is started, and say what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from segcore.data.pixels.cache_file import SampleCache
from segcore.gate.data_probes import DATA_PROBES
from segcore.gate.evidence import Evidence
from segcore.gate.metric_probe import probe_metric
from segcore.gate.model_probes import MODEL_PROBES
from segcore.gate.optimizer_probes import OPTIMIZER_PROBES
from segcore.gate.overfit import (
    Overfit,
    Start,
    applied_threshold,
    overfit,
)
from segcore.gate.picture import draw_picture
from segcore.gate.pipeline import Pipeline, build_pipeline
from segcore.gate.report import Figures, Finding, GateReport
from segcore.gate.training_probes import TRAINING_PROBES

if TYPE_CHECKING:
    from segcore.config import TrainConfig

BUDGET_S = 45.0
"""Seconds after which the gate starts nothing slow."""


def run_gate(
    config: TrainConfig,
    cache: SampleCache,
    *,
    num_cpus: int = 1,
    budget_s: float = BUDGET_S,
    pipeline: Pipeline | None = None,
) -> GateReport:
    """Probe the data, the model and everything between, overfit one batch, and name what is wrong.

    An error found by a probe of data or model already explains a batch that is not learned, so the probes of training
    run only when there is none.

    Args:
        config: The run's config.
        cache: The run's decoded samples, with a `train` split.
        num_cpus: Threads, at least 1. One is enough for this little work, and two are much slower where other
            processes need the cores.
        budget_s: Seconds after which nothing slow is started.
        pipeline: The objects to test; by default those built from the config.
    """
    started = time.perf_counter()
    with _threads(num_cpus):
        pipeline = pipeline or build_pipeline(config, cache)
        evidence = Evidence(pipeline, started + budget_s)
        findings: list[Finding] = []
        for look in (*DATA_PROBES.values(), *MODEL_PROBES.values(), *OPTIMIZER_PROBES.values(), probe_metric):
            findings += look(evidence)
        start = Start(pipeline)
        run = overfit(pipeline, evidence.batch, started + budget_s / 2)
        if not any(finding.severity == "error" for finding in findings):
            for inquire in TRAINING_PROBES.values():
                findings += inquire(evidence, run, start)
    findings.sort(key=lambda finding: finding.severity)
    return _report(evidence, run, findings, time.perf_counter() - started)


def _report(evidence: Evidence, run: Overfit, findings: list[Finding], seconds: float) -> GateReport:
    batch = evidence.batch
    threshold = applied_threshold(evidence.pipeline, run.curve)
    best_threshold, best_iou, _ = run.curve.best("iou")
    iou = run.curve.at(threshold).iou
    figures = Figures(
        num_images=len(batch),
        height=batch.images.shape[2],
        width=batch.images.shape[3],
        initial_loss=run.initial_loss,
        final_loss=run.final_loss,
        threshold=threshold,
        iou_at_threshold=iou,
        best_threshold=best_threshold,
        best_iou=best_iou,
        num_steps=len(run.losses),
        train_s=run.seconds,
        total_s=seconds,
        ended_by=run.ended_by,
    )
    title = (
        f"{len(run.losses)} steps on one batch: loss {run.initial_loss:.3f} to {run.final_loss:.3f}, "
        f"IoU {iou:.3f} at {threshold:.3f}, best {best_iou:.3f} at {best_threshold:.3f}"
    )
    picture = draw_picture(
        evidence.pipeline.task, batch.images.numpy(), batch.targets[:, 0].numpy(), run.probs.numpy(), threshold,
        run.curve.per_image_iou(threshold), title,
    )  # fmt: skip
    return GateReport(tuple(findings), figures, picture)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
