"""The search: from a config file to the sealed, confirmed and exported model.

Each package below says what it holds and ends with its layer: it may import its own layer, lower ones, and `segcore`.
"""
