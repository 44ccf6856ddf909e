"""When a trial is stopped, waits at a rung, or is replaced by a fork of a better one; knows nothing of Ray.

`rules/` holds a file for each scheduler that a config can choose, found there by `search.config.choices`. The rest is
what they are built of. Imported by `search.tune`, which stands between a rule and Ray, and by the report.

Layer 2.
"""
