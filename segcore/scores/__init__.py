"""Scoring predictions: threshold curves, scores of images, and their confidence intervals.

Imported by training, the gate, sealing and the confirmation of a search.

Layer 3.
"""
