"""The model, the dataset, the losses and the trainable: everything that one training run needs.

PyTorch and data, nothing of search: no click, W&B or Optuna, and Ray only in `trainable`. `search` may import all of
it. Each package below says what it holds and ends with its layer: it may import its own layer and lower ones.
"""
