"""Inputs that people have and that tools misread: each is made anew, small, with masks that are known.

`case` is the record and the list of them all; one module a kind. The benchmark `cases` and the tests run them.
"""
