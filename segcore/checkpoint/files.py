"""The files of a checkpoint: their names, and how they are written, linked, counted and removed."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

STATE_FILE = "state.pt"
PROGRESS_FILE = "progress.json"
LAST_WEIGHTS_FILE = "weights.safetensors"
WEIGHTS_FILE = "best.safetensors"
BEST_FILE = "best.json"
CURVE_FILE = "curve.json"
OVERLAYS_FILE = "overlays.npz"
IMAGES_FILE = "images.npz"
FILES_OF_BEST = (WEIGHTS_FILE, CURVE_FILE, OVERLAYS_FILE, IMAGES_FILE, BEST_FILE)


def folder_bytes(folders: Iterable[Path]) -> int:
    """What the files directly in some folders take on the disk; a file that has several names there counts once."""
    found = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat()
                found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def drop_state(folder: Path) -> None:
    """Leaves of a checkpoint what its best epoch needs; nobody can go on from it any more."""
    for name in (STATE_FILE, PROGRESS_FILE, LAST_WEIGHTS_FILE):
        (folder / name).unlink(missing_ok=True)


def drop_weights(folder: Path) -> None:
    """Leaves of a checkpoint that `drop_state` has gone over what its best epoch's scores need, without the weights."""
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)


def delete_checkpoint(folder: Path) -> None:
    """Removes a checkpoint, which is out of sight at once; nothing happens where there is none."""
    hidden = folder.with_name(f".{folder.name}.gone")
    try:
        folder.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)


def link_file(source: Path | str, target: Path | str) -> None:
    """Gives a file a second name, or copies it where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def files_of_best(folder: Path) -> list[str]:
    """The files of the best epoch that a checkpoint is to hold; earlier versions wrote no counts of images."""
    return [name for name in FILES_OF_BEST if name != IMAGES_FILE or (folder / name).exists()]


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside its place and moves it there; what stood there may be a link, so it is never written to."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write(temporary)
    os.replace(temporary, path)
