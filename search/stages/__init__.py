"""The job, stage by stage: check, gate, search, confirm, seal, export, report; a file for each.

Imported by the command line alone.

Layer 5.
"""
