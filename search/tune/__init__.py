"""Ray Tune over the study: one session of a search, its searcher, callbacks, resources and failures.

Imported by reruns and stages; nothing below it knows Ray's trials.

Layer 3.
"""
