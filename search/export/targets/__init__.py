"""The places that a sealed model can be sent to: one file a target, which declares it and builds it.

Nobody imports them by name: `search.config.choices` finds them, so that a new file here is a new target. A config is
checked before a client library is imported, so these files import theirs inside functions.
"""
