"""What predictions are worth: threshold curves, scores of images, and intervals of them.

Imported by training, the gate, sealing and the confirmation of a search.

Layer 3.
"""
