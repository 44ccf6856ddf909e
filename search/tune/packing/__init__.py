"""How many trials share a GPU: the largest configuration of the space is measured.

Imported by `search.tune.search`.

Layer 3.
"""
