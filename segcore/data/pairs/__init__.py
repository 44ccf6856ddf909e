"""Which mask belongs to which image, in which split, and what is wrong with that; no pixel is decoded but for likeness.

Imported by the other rooms of `segcore.data` and by whoever takes an index of samples.

Layer 1.
"""
