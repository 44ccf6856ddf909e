"""From files to arrays: decoding, what of a mask is foreground, and the memory-mapped cache of decoded samples.

Imported by the loader, by scoring and by the gate.

Layer 1.
"""
