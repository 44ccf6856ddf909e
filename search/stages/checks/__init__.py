"""Everything that is found out before anything is trained: one ordered list of checks, which every job goes through.

`search.stages.checks.listing.CHECKS` is the list; `segsearch check` prints each of its entries, and `run`, `train`,
`extend` and `resume` stop where one fails. Imported by the stages and the command line.
"""
