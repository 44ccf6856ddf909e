"""The training loop and what it is made of: the step, optimizer and schedule, validation, device and memory.

Imported by the trainable, the gate and the search's probes.

Layer 4.
"""
