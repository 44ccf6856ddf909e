"""The learning-rate schedules, one file each: its options, its closed form and its twin, declared as `COMPONENT`.

Found by the registry of schedules, from which the config's section is made; so nothing here imports torch at start.

Layer 4.
"""
