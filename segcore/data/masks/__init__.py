"""What masks mean: each file is surveyed, one rule is decided for the whole data set, and every mask is read by it.

Imported by the decoding of files, the cache and scoring.

Layer 1.
"""
