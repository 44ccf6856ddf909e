"""The learning-rate schedules, one file each: its options, its closed form and its twin, declared as `COMPONENT`.

The registry of schedules imports these to build the config's section, so nothing here imports torch at import time.

Layer 4.
"""
