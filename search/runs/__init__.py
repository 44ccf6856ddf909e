"""A run's folder: the names of its files, its record, its journal, its tables, and reading all of them back.

Imported by everything that writes or reads a run; the journal is the truth, the tables mirror it.

Layer 2.
"""
