"""The model, the dataset, the losses and the trainable: everything that one training run needs.

PyTorch and data, nothing of search: no click, W&B or Optuna, and Ray only in `trainable`. `search` may import all of
it. Each package below says what it holds and ends with its layer: it may import its own layer and lower ones.

For scripts and notebooks, each loaded when it is first asked for:

- `segcore.load_model(path_or_run)`: a sealed model; `model.predict(image)` gives its mask.
- `segcore.fit(config, data)`: one training run; gives the best model and all epochs.
- `segcore.TrainConfig`: what a training run depends on.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segcore.api import fit
    from segcore.config import TrainConfig
    from segcore.sealed.model import load_model

__all__ = ["TrainConfig", "fit", "load_model"]

_HOMES = {"TrainConfig": "segcore.config", "fit": "segcore.api", "load_model": "segcore.sealed.model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
