"""When a trial is stopped, waits at a rung, or is replaced by a fork of a better one.

Imported by `search.tune`.

Layer 2.
"""
