"""From files to arrays: decoding, which pixels of a mask are foreground, and the memory-mapped cache of samples.

Imported by the loader, by scoring and by the gate.

Layer 1.
"""
