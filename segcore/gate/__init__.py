"""The gate: before a search starts, one batch is overfitted, and whatever prevents learning is named.

Imported only by the search's stages.

Layer 5.
"""

from segcore.gate.gate import BUDGET_S, run_gate
from segcore.gate.pipeline import Pipeline, build_pipeline
from segcore.gate.report import Figures, Finding, GateReport

__all__ = ["BUDGET_S", "Figures", "Finding", "GateReport", "Pipeline", "build_pipeline", "run_gate"]
