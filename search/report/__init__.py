"""A run's report: one HTML page that opens offline, made of plain records computed from the run's files.

Imported by stages and the command line.

Layer 4.
"""
