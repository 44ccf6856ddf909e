"""The check that a run is what its config says: live objects are read back and compared before the first step.

Imported by the loop, the trainable and the check of a search space.

Layer 4.
"""
