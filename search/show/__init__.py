"""What the terminal prints of a run, a space, a confirmation: records in, text out.

Imported by stages and the command line.

Layer 4.
"""
