"""A search on a pretended GPU: Ray counts one, and each trial is held to its share of so many bytes.

    python -P tests/support/capped_search.py FOLDER      runs, or goes on with, the search of FOLDER/capped.yaml

`PRETENDED_GPU_BYTES` is what the GPU has; `TRIALS_THAT_MEET` trials wait for one another before their first step, so
that they are sure to run side by side.
"""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from memory_limit import MemoryLimit

MEET_TIMEOUT_S = 120.0


def train_within_limit(spec: dict[str, Any]) -> None:
    """`train_trial`, with a torch that runs out of memory beyond the trial's share."""
    from segcore.trainable import train_trial

    with Path(os.environ["SHARES_FILE"]).open("a", encoding="utf-8") as notes:
        notes.write(f"{spec['number']} {spec['gpu_fraction']} {spec['num_cpus']}\n")
    meet(Path(os.environ["SHARES_FILE"]), int(os.environ["TRIALS_THAT_MEET"]))
    with MemoryLimit(int(spec["gpu_fraction"] * int(os.environ["PRETENDED_GPU_BYTES"]))):
        train_trial(spec)


def meet(notes: Path, count: int) -> None:
    """Waits until so many trials have begun."""
    deadline = time.monotonic() + MEET_TIMEOUT_S
    while len(notes.read_text(encoding="utf-8").splitlines()) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {count} trials began side by side")
        time.sleep(0.02)


def main(folder: Path) -> None:
    """The driver."""
    import ray
    from capped_search import train_within_limit as trainable  # by this name the workers find it
    from rich.console import Console

    from search.config.load import load_config
    from search.runs.folder import create_run
    from search.runs.paths import RunPaths
    from search.space.search import Search
    from search.stages import checking
    from search.tune.progress import ProgressCallback
    from search.tune.search import run_search

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = load_config(folder / "capped.yaml")
    console = Console(stderr=True, quiet=True)
    _, cache = checking.prepare_data(config, console)
    paths = RunPaths(Path(config.results) / config.name)
    if not paths.run.exists():
        create_run(config, "search")
    progress = ProgressCallback(
        console, config.search.objective, num_samples=config.search.num_samples, num_epochs=config.train.epochs
    )
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ended = run_search(Search.of(config), paths, cache, [progress], trainable)
    logging.info("ended" if ended else "not ended")
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
