"""Which Ray a command uses, what watches over it while it works, and what its nodes have.

Imported by the rest of `search.tune`, by reruns and by stages.

Layer 3.
"""
