"""Training-time augmentation: drawn as a plan for each sample, carried out on the CPU or on the device.

Imported by the loader, the training step and the proof of applied configs.

Layer 1.
"""
