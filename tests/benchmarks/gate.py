"""What the gate says of injected faults, and of healthy configs.

    make bench NAME=gate

Each fault is put into a healthy pipeline of a small U-Net (or of EfficientNet-Lite0) on the synthetic data, and must be
named by its own code and no other; ten healthy configs, and horses and nuclei where they lie beside the checkout, must
pass without a finding. One thread, each case by itself; seconds are those of the whole gate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench_page import table, write_page
from gate_faults import FAULTS, HEALTHY, LITE0, Fault, cache_of, config_of

from segcore.gate.gate import run_gate
from segcore.gate.pipeline import build_pipeline
from segcore.gate.report import GateReport
from segcore.training.device import begin_trial

SHARED = Path(__file__).resolve().parents[3] / "shared"
QUICK_FAULTS = ("masks left at 0/255", "masks shuffled", "sigmoid in the model", "threshold far too high")
QUICK_HEALTHY = 2


def judge(changes: dict[str, Any], folder: Path, fault: Fault | None = None) -> GateReport:
    """The gate's report of one case."""
    config = config_of(changes, folder)
    with cache_of(config) as cache:
        pipeline = build_pipeline(config, cache)
        if fault is not None:
            fault.inject(pipeline)
        return run_gate(config, cache, pipeline=pipeline)


def said(report: GateReport) -> str:
    """Every finding in a table's cell."""
    found = [
        f"{finding.severity} `{finding.code}`: {finding.message} "
        f"({', '.join(f'{k} {v:.4g}' if isinstance(v, float) else f'{k} {v}' for k, v in finding.evidence.items())})"
        for finding in report.findings
    ]
    return "; ".join(found) or "nothing"


def healthy_cases() -> dict[str, dict[str, Any]]:
    """The ten, and real data where there is some."""
    cases = dict(HEALTHY)
    weights = SHARED / "weights" / "tf_efficientnet_lite0.safetensors"
    for name in ("horses", "nuclei"):
        if (SHARED / "data" / name).is_dir():
            cases[f"{name}, U-Net of 16 channels, 96 px"] = {
                "data.root": str(SHARED / "data" / name), "data.image_size": 96, "model.base_channels": 16,
                "optimizer.lr": 1e-3,
            }  # fmt: skip
            if weights.is_file():
                cases[f"{name}, pretrained EfficientNet-Lite0, 128 px"] = {
                    **LITE0, "data.root": str(SHARED / "data" / name), "data.image_size": 128,
                    "model.encoder_weights": str(weights), "optimizer.lr": 1e-3,
                }  # fmt: skip
    return cases


def main() -> None:
    """Injects, prints the tables and writes the page; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: a few cases, and no page.")
    options = parser.parse_args()
    begin_trial(1, 1.0)
    faults = [fault for fault in FAULTS if not options.quick or fault.name in QUICK_FAULTS]
    healthy = dict(list(HEALTHY.items())[:QUICK_HEALTHY]) if options.quick else healthy_cases()
    missed, false_alarms, seconds = [], [], []
    fault_rows, healthy_rows = [], []
    with tempfile.TemporaryDirectory(prefix="segsearch-bench-") as name:
        folder = Path(name)
        for fault in faults:
            report = judge(fault.changes or {}, folder, fault)
            if [finding.code for finding in report.findings] != [fault.code]:
                missed.append(fault.name)
            seconds.append(report.figures.total_s)
            fault_rows.append([fault.name, said(report), f"{report.figures.total_s:.1f}"])
            print(fault_rows[-1], flush=True)
        for case, changes in healthy.items():
            report = judge(changes, folder)
            if report.findings:
                false_alarms.append(case)
            figures = report.figures
            seconds.append(figures.total_s)
            healthy_rows.append(
                [
                    case, said(report), f"{figures.width}x{figures.height}", str(figures.num_steps),
                    f"{figures.initial_loss:.3f} to {figures.final_loss:.3f}", f"{figures.best_iou:.3f}",
                    f"{figures.total_s:.1f}",
                ]
            )  # fmt: skip
            print(healthy_rows[-1], flush=True)
    lines = ["## Faults", "", *table(["fault", "what the gate said", "seconds"], fault_rows)]
    lines += ["", f"Missed: {len(missed)} of {len(faults)}{': ' + ', '.join(missed) if missed else ''}.", ""]
    header = ["config", "what the gate said", "pixels", "steps", "loss", "best IoU", "seconds"]
    lines += ["## Healthy configs", "", *table(header, healthy_rows)]
    lines += ["", f"False alarms: {len(false_alarms)} of {len(healthy)}. Slowest case: {max(seconds):.0f} s."]
    print("\n".join(lines))
    if not options.quick:
        print(f"wrote {write_page('gate', 'The gate', (__doc__ or '').split('NAME=gate')[-1], lines)}")
    result = {
        "faults": len(faults), "missed": len(missed), "healthy": len(healthy), "false_alarms": len(false_alarms),
        "slowest_s": round(max(seconds), 1),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
