"""Configs and machines that a run cannot work with, or that must not matter to it."""

from collections.abc import Callable
from pathlib import Path

from case import Case, Truth, write_pairs

_HOSTILE = ("search", "segcore", "random", "queue", "torch", "numpy", "wandb", "utils")


def _foreign_modules(folder: Path) -> Truth:
    """Files in the current folder whose names are those of modules that a worker imports."""
    here = folder / "here"
    here.mkdir(parents=True)
    for name in _HOSTILE:
        (here / f"{name}.py").write_text("raise ImportError('a module of somebody else')\n")
    (here / "albumentations").mkdir()
    (here / "albumentations" / "__init__.py").write_text("raise ImportError('a package of somebody else')\n")
    return write_pairs(folder)


def _refused(name: str, says: str, *settings: str) -> Case:
    return Case(name, write_pairs, "asks", says, settings)


def _read(name: str, says: str, *settings: str, make: Callable[[Path], Truth] = write_pairs, here: str = "") -> Case:
    return Case(name, make, "warns" if says else "reads", says, settings, here=here)


_TO_ONE_PIXEL = ("model.depth=4", "model.base_channels=2", "data.image_size=16")

_TWO_POINTS = ("space={augment.policy: {choice: [none, flip]}}", "search.num_samples=5")

SETTINGS = [
    _refused("batches of one image on a map of one pixel", "batch_size", "train.batch_size=1", *_TO_ONE_PIXEL),
    _refused("micro batches of one image there", "micro_batch_size", "train.micro_batch_size=1", *_TO_ONE_PIXEL),
    _refused(
        "such a point somewhere in the space", "batch_size", "space.train.batch_size={choice: [1, 6]}", *_TO_ONE_PIXEL
    ),
    _refused("results in a bucket", "results", "results=s3://bucket/runs"),
    _refused("Ray's client address", "ray://", "resources.address=ray://127.0.0.1:10001"),
    _refused("an address where no Ray is", "127.0.0.1:9", "resources.address=127.0.0.1:9"),
    _refused("a Ray that is not there", "auto", "resources.address=auto"),
    _refused("GPUs where there are none", "gpus_per_trial", "resources.gpus_per_trial=1"),
    _read(
        "two points for five trials",
        "2 points",
        "space={augment.policy: {choice: [none, flip]}}",
        "search.num_samples=5",
    ),
    _read("files named as modules in the current folder", "", make=_foreign_modules, here="here"),
]
"""Of the third kind: what a run needs of its config and machine."""
