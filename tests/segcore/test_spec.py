"""What goes through Ray comes out as it was."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from segcore.config import TrainConfig
from segcore.spec import TrialReport, TrialSpec, mark_waiting, number_of

PLAIN = TrialSpec(3, TrainConfig(), Path("/cache.arrow"), "val/iou", Path("/run/trial"))
FULL = TrialSpec(
    number=7, train=TrainConfig(threshold=0.4), cache=Path("/cache.arrow"), metric="val/loss", folder=Path("/trial"),
    num_cpus=2.0, gpu_fraction=0.25, attempt=1, checkpoints=(Path("/a"), Path("/b")), save_at=(1, 3), reached=4,
    strikes=2, fork_from=Path("/parent"), measure_latency=True, may_retry_alone=True, label="trial 9, seed 2",
)  # fmt: skip
REPORT = TrialReport(
    number=7, epoch=3, metrics={"val/iou": 0.5, "lr": 1e-3, "cost/parameters": 12}, best_epoch=2, finished=True,
    checkpoint_bytes=99, note="compiled", applied={"lr": 1e-3}, machine={"cpu": "x"},
)  # fmt: skip


@pytest.mark.parametrize("spec", [PLAIN, FULL])
def test_a_spec_goes_through_ray_as_plain_values(spec: TrialSpec) -> None:
    plain = spec.to_ray()
    assert json.loads(json.dumps(plain)) == plain
    assert TrialSpec.from_ray(plain) == spec
    assert number_of(SimpleNamespace(config=plain, last_result=None)) == spec.number


@pytest.mark.parametrize("report", [REPORT, TrialReport(0, 1, {"val/iou": 0.5})])
def test_a_report_comes_back_without_what_ray_adds(report: TrialReport) -> None:
    flat = report.to_ray()
    assert all(isinstance(value, int | float | str | None) for value in flat.values())
    rays = {"config": {"lr": 1}, "config/lr": 1.0, "time_total_s": 3.0, "done": False, "trial_id": "a/b"}
    assert TrialReport.from_ray({**flat, **rays}) == report


def test_metrics_are_the_numbers_of_the_report_alone() -> None:
    result = {"number": 0, "epoch": 1, "val/iou": 0.5, "lr": 1e-3, "config/lr": 1.0, "time_s": 3.0, "a/b": "text"}
    for wanted in (["val/iou"], []):  # one is asked for first, or all are
        metrics = TrialReport.from_ray(result).metrics  # type: ignore[union-attr]
        assert [metrics[key] for key in wanted] == [0.5] * len(wanted)
        assert dict(metrics) == {"val/iou": 0.5, "lr": 1e-3}
        for other in ("config/lr", "a/b", "time_s", "val/dice"):
            with pytest.raises(KeyError, match=other):
                TrialReport.from_ray(result).metrics[other]  # type: ignore[union-attr]


def test_what_is_no_report_of_an_epoch_is_none() -> None:
    assert TrialReport.from_ray(None) is None
    assert TrialReport.from_ray({"done": True, "number": 1}) is None


def test_that_a_trial_waits_is_known_from_its_last_report_on() -> None:
    trial = SimpleNamespace(config={}, last_result=REPORT.to_ray())
    assert not TrialReport.last_of(trial).waiting
    mark_waiting(trial)
    assert TrialReport.last_of(trial).waiting
    silent = SimpleNamespace(config={}, last_result=None)
    mark_waiting(silent)
    assert TrialReport.last_of(silent) is None
