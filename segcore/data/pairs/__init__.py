"""Which mask belongs to which image, in which split, and what is wrong with that; only `likeness` needs pixels.

Imported by the other packages of `segcore.data` and by all users of an index of samples.

Layer 1.
"""
