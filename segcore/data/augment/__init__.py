"""Training-time augmentation: drawn as a plan for each sample, applied on the CPU or on the device.

Imported by the loader, the training step and the check of applied configs.

Layer 1.
"""
