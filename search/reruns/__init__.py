"""Repeated trainings of a search: to confirm its winner, and to measure what each change was worth.

Imported by stages.

Layer 4.
"""
