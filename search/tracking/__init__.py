"""Weights & Biases: a run for each trial, on the driver, that nothing waits for.

Imported by reruns and stages, and by the export target that uploads an artifact.

Layer 3.
"""
