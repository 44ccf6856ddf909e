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
    """Bytes on disk of the files directly in some folders; a hard-linked file counts once."""
    found = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat()
                found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def drop_state(folder: Path) -> None:
    """Delete a checkpoint's training state, keeping the best epoch's files; training cannot resume from it any more."""
    for name in (STATE_FILE, PROGRESS_FILE, LAST_WEIGHTS_FILE):
        (folder / name).unlink(missing_ok=True)


def drop_weights(folder: Path) -> None:
    """Delete the best epoch's weights, keeping its scores; for a checkpoint after `drop_state`."""
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)


def delete_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, hiding it first by a rename; do nothing where there is none."""
    hidden = folder.with_name(f".{folder.name}.gone")
    try:
        folder.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)


def link_file(source: Path | str, target: Path | str) -> None:
    """Hard-link a file, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def files_of_best(folder: Path) -> list[str]:
    """Names of the best epoch's files that a checkpoint should hold; earlier versions wrote no image counts."""
    return [name for name in FILES_OF_BEST if name != IMAGES_FILE or (folder / name).exists()]


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file and move it to `path`; an existing file may be a hard link, so it is never written to."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write(temporary)
    os.replace(temporary, path)
