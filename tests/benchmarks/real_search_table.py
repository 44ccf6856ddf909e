"""Records the table that `real_search` searches: every combination of a small space, trained to the end on real images.

    make bench NAME=real_search_table ARGS="--data DIR"

DIR holds `{train,val}/images/CLASS` + `gt/CLASS`. 112 configs of 27 epochs each, one thread a process; a config that is
recorded already is not trained again, and several processes may work on the same `--parts` folder side by side. The
result, `results/benchmarks/real_search.parquet`, has a row an epoch: the settings, `epoch`, `iou` (mean IoU per image
on val at the best threshold), `dice`, `train_loss` and `cpu_s` (CPU seconds of the epoch, which other work on the
machine does not change).
"""

import argparse
import itertools
import json
import os
import random
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "results" / "benchmarks" / "real_search.parquet"
EPOCHS = 27
LEVELS: dict[str, list[Any]] = {
    "optimizer.lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    "model.arch": ["unet", "attention_unet"],
    "loss.dice": [0.0, 1.0],
    "lr_scheduler.name": ["constant", "onecycle"],
    "augment.policy": ["none", "flip"],
}
"""The whole space: each trial of the table is one combination."""
SETTINGS: dict[str, Any] = {
    "data": {"image_size": 48},
    "model": {"encoder": "none", "base_channels": 8, "depth": 4},
    "train": {"epochs": EPOCHS, "batch_size": 16},
}


def combinations() -> list[dict[str, Any]]:
    """Every config of the space."""
    return [dict(zip(LEVELS, values, strict=True)) for values in itertools.product(*LEVELS.values())]


def train(point: dict[str, Any], root: Path, part: Path) -> None:
    """Trains one config to the end and writes its rows."""
    from search.space.parse import apply
    from segcore.config import TrainConfig
    from segcore.data.pairs.discovery import discover
    from segcore.data.pixels.cache import build_cache
    from segcore.data.pixels.cache_file import open_cache
    from segcore.errors import NonFiniteLossError
    from segcore.training.loop import fit

    base = TrainConfig.model_validate({**SETTINGS, "data": {**SETTINGS["data"], "root": str(root)}})
    config = apply(base, point)
    cache_path = build_cache(discover(config.data), config.data, lambda *_: None)
    rows = []
    with open_cache(cache_path) as cache:
        started = time.process_time()
        try:
            for result in fit(config, cache, metric="val/iou", checkpoint=None, num_cpus=1):
                rows.append(
                    {
                        **point,
                        "epoch": result.epoch,
                        "iou": result.metrics["val/iou"],
                        "dice": result.metrics["val/dice"],
                        "train_loss": result.metrics["train/loss"],
                        "cpu_s": time.process_time() - started,
                    }
                )
                started = time.process_time()
        except NonFiniteLossError as error:  # the loss is no number any more: part of the truth about this config
            print(f"{point}: {error}", flush=True)
    beside = part.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({"point": point, "rows": rows}), encoding="utf-8")
    beside.replace(part)


def main() -> None:
    """Trains what is not recorded yet; the process that finds nothing left to train writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "horses")
    parser.add_argument("--parts", type=Path, default=ROOT / "results" / "real_search_parts")
    parser.add_argument("--quick", action="store_true", help="A smoke run: one config, and no table is written.")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    options.parts.mkdir(parents=True, exist_ok=True)
    todo = list(enumerate(combinations()))
    random.Random(0).shuffle(todo)
    for index, point in todo[:1] if options.quick else todo:
        part = options.parts / f"{index:03d}.json"
        claim = options.parts / f"{index:03d}.claim"
        if part.exists():
            continue
        try:
            claim.open("x").close()
        except FileExistsError:
            continue
        try:
            train(point, options.data, part)
        finally:
            claim.unlink()
    recorded = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.parts.glob("*.json"))]
    print(f"{len(recorded)} of {len(todo)} configs recorded")
    if len(recorded) == len(todo) and not options.quick:
        pq.write_table(pa.Table.from_pylist([row for part in recorded for row in part["rows"]]), TABLE)
        print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
