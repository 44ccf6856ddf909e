"""A training config as plain namespaces, for machines that hold no pydantic: the benchmarks of `segcore` alone.

`tests/test_plain_config.py` holds that the values here are `TrainConfig`'s defaults.
"""

from types import SimpleNamespace
from typing import Any

DEFAULTS: dict[str, dict[str, Any]] = {
    "data": {
        "root": "data", "layout": "auto", "mask_suffix": "_mask", "image_size": 256, "val_fraction": 0.2,
        "test_fraction": "auto", "group_by": None, "group_duplicates": False, "foreground": None, "seed": 0,
        "cache_dir": None,
    },
    "model": {
        "arch": "unet", "encoder": "none", "encoder_weights": "none", "base_channels": 32, "depth": 4,
        "decoder_channels": None, "dropout": 0.0, "in_channels": 3, "num_classes": 1,
    },
    "augment": {
        "policy": "light", "probability": 0.5, "vertical_flip": False, "scale": 0.2, "rotate": 15.0, "color": 0.2,
    },
    "loss": {
        "bce": 1.0, "dice": 1.0, "focal": 0.0, "tversky": 0.0, "lovasz": 0.0, "bce_pos_weight": 1.0,
        "focal_gamma": 2.0, "focal_alpha": 0.25, "tversky_alpha": 0.5, "tversky_beta": 0.5, "smooth": 1.0,
    },
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "momentum": 0.9, "encoder_lr_factor": 1.0},
    "lr_scheduler": {
        "name": "cosine", "patience": 2, "factor": 0.1, "warmup_epochs": 1.0, "min_lr_factor": 0.01, "pct_start": 0.3,
        "power": 0.9,
    },
    "train": {
        "epochs": 25, "batch_size": 16, "micro_batch_size": None, "precision": "auto", "compile": "auto",
        "grad_clip": 1.0, "ema_decay": 0.0, "num_workers": "auto", "augment_on": "auto", "deterministic": False,
        "seed": 0,
    },
}  # fmt: skip


def plain_config(changes: dict[str, Any] | None = None) -> Any:
    """`TrainConfig`'s defaults with dotted keys replaced, e.g. `{"model.arch": "attention_unet"}`.

    Raises:
        KeyError: There is no such key.
    """
    tree: dict[str, Any] = {section: dict(values) for section, values in DEFAULTS.items()}
    tree["threshold"] = "auto"
    for key, value in (changes or {}).items():
        section, _, leaf = key.rpartition(".")
        here = tree[section] if section else tree
        if leaf not in here:
            raise KeyError(f"no key {key!r} in a training config")
        here[leaf] = value
    config = SimpleNamespace(**{k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in tree.items()})
    size = config.data.image_size
    config.data.image_hw = (size, size) if isinstance(size, int) else size
    config.data.foreground_values = config.data.foreground
    return config
