"""The gate: one batch overfitted, and whatever keeps it from being learned named, before a search is begun.

Imported by the search's stages alone.

Layer 5.
"""

from segcore.gate.gate import BUDGET_S, run_gate
from segcore.gate.pipeline import Pipeline, build_pipeline
from segcore.gate.report import Figures, Finding, GateReport

__all__ = ["BUDGET_S", "Figures", "Finding", "GateReport", "Pipeline", "build_pipeline", "run_gate"]
