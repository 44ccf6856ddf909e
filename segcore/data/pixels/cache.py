"""Decodes a data set once into an Arrow IPC file of uint8, memory-mapped and shared by every process of a machine.

It has one row per sample, in batches that are written as they are decoded and read without a copy, so neither building
nor reading needs the whole file in memory. The file's name holds a key of its sources, the file is created atomically,
and caches of earlier states of a data set are left for the user to delete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from segcore.data.pairs.checks import Problems
from segcore.data.pairs.likeness import Likeness, find_leaks, likeness_of
from segcore.data.pairs.samples import DatasetIndex, Sample
from segcore.data.pixels.cache_file import (
    FORMAT_VERSION,
    TEXT_COLUMNS,
    SampleCache,
    cache_schema,
    encode_metadata,
    open_cache,
)
from segcore.data.pixels.content import Content, decode_all
from segcore.data.pixels.detail import sample_warnings
from segcore.data.pixels.surveying import decide_rule, inspect_pairs
from segcore.errors import DataError

if TYPE_CHECKING:
    from segcore.config import DataConfig

__all__ = ["SampleCache", "build_cache", "cache_folder", "cache_path", "open_cache"]

_BATCH_BYTES = 16 * 1024**2


def cache_folder(config: DataConfig) -> Path:
    """The folder of decoded caches: `config.cache_dir`, else the user's cache folder."""
    if config.cache_dir is not None:
        return Path(config.cache_dir).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("segsearch"))


def cache_path(index: DatasetIndex, config: DataConfig) -> Path:
    """The path of the cache of this data set in its current state, whether it exists or not.

    The key covers every file's name, size and times, the splits, classes and groups, the image size and `foreground`.
    So a changed file gives another path, even one that was only touched.
    """
    height, width = config.image_hw
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(index.root).stem)[:40].strip("_.") or "data"
    return cache_folder(config) / f"{name}-{height}x{width}-{_key(index, config)}.arrow"


def build_cache(index: DatasetIndex, config: DataConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    """Decode and resize every sample into the cache, unless it already exists.

    Processes that need the same cache at once wait for the first one to build it. Leftovers of a crashed build are
    removed.

    Args:
        index: The data set.
        config: Image size and cache folder.
        progress: Called with the samples done and the total, from this thread.

    Returns:
        Path of the cache, for `open_cache`.

    Raises:
        DataError: Files are unreadable, are not masks, or differ in size (all are listed), or the disk is full.
    """
    try:
        path = cache_path(index, config)
    except OSError as error:  # a file cannot even be looked at: that and all else that is wrong is told at once
        inspect_pairs(index.samples, Path(index.root), config.foreground_values, progress).raise_if_any(index.root)
        raise DataError(f"{index.root}: the files changed while they were read ({error}); try again") from error
    if _is_whole(path, len(index.samples)):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_path(path)):
            if not _is_whole(path, len(index.samples)):
                _remove_leftovers(path)
                _build(path, index, config, progress)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise DataError(_no_space(path.parent, _size_bytes(index, config.image_hw), str(error))) from error
        raise DataError(f"cannot write the cache {path}: {error}; set data.cache_dir to another folder") from error
    return path


def _key(index: DatasetIndex, config: DataConfig) -> str:
    digest = hashlib.sha256(
        json.dumps([FORMAT_VERSION, index.root, list(config.image_hw), config.foreground_values]).encode()
    )
    for sample in index.samples:
        # The change time differs even when a copy keeps size and modification time.
        files = [
            (path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for path in (sample.image, sample.mask)
            for stat in (path.stat(),)
        ]
        digest.update(json.dumps([sample.name, sample.split, sample.class_name, sample.group, files]).encode())
    return digest.hexdigest()[:20]


def _is_whole(path: Path, num_samples: int) -> bool:
    if not path.is_file():
        return False
    try:
        with open_cache(path) as cache:
            return len(cache) == num_samples
    except DataError:
        return False


def _build(path: Path, index: DatasetIndex, config: DataConfig, progress: Callable[[int, int], None] | None) -> None:
    hw = config.image_hw
    needed, free = _size_bytes(index, hw), shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(_no_space(path.parent, needed, f"{free / 1e9:.2f} GB are free"))
    root = Path(index.root)
    decision = decide_rule((sample.mask for sample in index.samples), config.foreground_values, root)
    problems, turns, digests = decision.problems, dict[int, int](), []
    likenesses: list[Likeness] = []
    rows_per_batch = max(1, _BATCH_BYTES // (hw[0] * hw[1] * 4))
    count = len(index.samples)
    schema = cache_schema(hw, rows_per_batch, count)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            contents = decode_all(index.samples, hw, root, decision.rule)
            contents = _watched(contents, problems, turns, count, progress)
            with pa.ipc.new_file(file, schema) as writer:
                for first in range(0, count, rows_per_batch):
                    samples = index.samples[first : first + rows_per_batch]
                    batch, found, alike = _fill(samples, contents, hw, schema)
                    digests += found
                    likenesses += alike
                    if not problems.errors:  # else only the remaining problems matter
                        writer.write_batch(batch)
                problems.raise_if_any(index.root)
                assert decision.rule is not None, "a doubt is a problem"
                noted = sample_warnings([sample.mask for sample in index.samples], decision.rule, hw)
                tail = {
                    "fingerprint": _fingerprint(index.samples, digests, hw),
                    "mask_rule": decision.rule.tree(),
                    "warnings": (*problems.warnings(), *noted),
                    "unproven_turns": list(turns.items()),
                    "leaks": find_leaks(likenesses, [s.split for s in index.samples], [d[:32] for d in digests]),
                }
                writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema), custom_metadata=encode_metadata(tail))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _watched(
    contents: Iterator[Content],
    problems: Problems,
    turns: dict[int, int],
    total: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Content]:
    """Collect the problems and the turns in doubt, by the sample's index, while contents pass."""
    for done, content in enumerate(contents, start=1):
        problems.extend(content.problems)
        if content.unproven_turn != 1:
            turns[done - 1] = content.unproven_turn
        if progress is not None:
            progress(done, total)
        yield content


def _fill(
    samples: Sequence[Sample], contents: Iterator[Content], hw: tuple[int, int], schema: pa.Schema
) -> tuple[pa.RecordBatch, list[bytes], list[Likeness]]:
    rows = len(samples)
    images, masks = np.zeros((rows, *hw, 3), np.uint8), np.zeros((rows, *hw), np.uint8)
    digests, likenesses, sizes = [], [], np.zeros((rows, 2), np.int32)
    for row in range(rows):
        content = next(contents)
        digests.append(content.digest)
        sizes[row] = content.original_hw
        if content.image is not None and content.mask is not None:
            images[row], masks[row] = content.image, content.mask
            likenesses.append(likeness_of(content.image))
    texts = [[getattr(sample, name) for sample in samples] for name in TEXT_COLUMNS]
    arrays = [
        pa.Array.from_buffers(schema.field("image").type, rows, [None, pa.py_buffer(images)]),
        pa.Array.from_buffers(schema.field("mask").type, rows, [None, pa.py_buffer(masks)]),
        *(pa.array(column, pa.string()) for column in texts),
        pa.array(sizes[:, 0]),
        pa.array(sizes[:, 1]),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema), digests, likenesses


def _fingerprint(samples: Sequence[Sample], digests: Sequence[bytes], hw: tuple[int, int]) -> str:
    rows = sorted(f"{s.split} {d.hex()}" for s, d in zip(samples, digests, strict=True))
    return hashlib.sha256("\n".join([f"{hw[0]}x{hw[1]}", *rows]).encode()).hexdigest()


def _size_bytes(index: DatasetIndex, hw: tuple[int, int]) -> int:
    return len(index.samples) * (hw[0] * hw[1] * 4 + 256) + 1024**2


def _no_space(folder: Path, needed: int, found: str) -> str:
    return (
        f"no room for the decoded images: {folder} needs {needed / 1e9:.2f} GB ({found}); "
        "set data.cache_dir to a larger disk, or lower data.image_size"
    )


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _remove_leftovers(path: Path) -> None:
    """Delete temporary files of crashed builds: this cache's (its lock is held), and others' that are not locked."""
    for temporary in path.parent.glob(".*.arrow.*.tmp"):
        owner = path.with_name(temporary.name[1:].rsplit(".", 2)[0])
        if owner == path:
            temporary.unlink(missing_ok=True)
            continue
        with contextlib.suppress(Timeout), FileLock(_lock_path(owner), timeout=0):
            temporary.unlink(missing_ok=True)
