"""A run's report: one HTML page that opens offline, made of plain records computed from the run's files.

`build` assembles the page and the JSON from `sections`, one file each; the other modules are what sections are made of.
Imported by stages and the command line.

Layer 4.
"""
