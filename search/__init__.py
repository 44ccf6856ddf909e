"""The search: from a config file to the sealed, confirmed and exported model.

Each package below says what it holds and ends with its layer: it may import its own layer, lower ones, and `segcore`.

For scripts and notebooks, each loaded when it is first asked for:

- `search.load_config(path, overrides)`: a checked config.
- `search.run(config)`: the whole job of `segsearch run`; gives the run.
- `search.resume(run)`: the rest of a run that was stopped.
- `search.open_run(run)`: a run that runs, has ended or was killed; `.trials` has its trials as rows,
  `.trials.to_arrow()` and `.trials.to_pandas()` as a table.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api import load_config, open_run, resume, run

__all__ = ["load_config", "open_run", "resume", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("search.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
