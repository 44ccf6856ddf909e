"""The sealed model: its bundle on disk, its card, and loading it back.

Imported by scores, the export targets and everything that reads a run.

Layer 2.
"""
