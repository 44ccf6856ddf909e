"""The search space: domains, branches, rules, priors, and the checks that a searched key does something.

Imported by the config, the study, samplers, schedulers and stages.

Layer 1.
"""
