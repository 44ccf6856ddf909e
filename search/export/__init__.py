"""Where the sealed model is sent: one file a target, each copy verified.

Imported by the stage that exports.

Layer 3.
"""
