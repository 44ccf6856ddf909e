"""Trainings of a search made again: to confirm its winner, and to say what each change was worth.

Imported by stages.

Layer 4.
"""
