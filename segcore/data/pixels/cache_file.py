"""Reads the file of decoded samples: a memory-mapped Arrow IPC file with one row per sample.

Images and masks are fixed-size binary columns without nulls, so a sample is a view of the mapped file. The head (schema
metadata) says how the rows are split into batches; the tail (metadata of a last, empty batch) holds what is known only
when all rows are written. A file without its tail is incomplete.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import pyarrow as pa

from segcore.data.masks.planes import ByteArray
from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.likeness import Leak
from segcore.data.pairs.samples import Split
from segcore.errors import DataError

FORMAT_VERSION = 4
TEXT_COLUMNS = ("name", "class_name", "split", "group")


def open_cache(path: Path) -> "SampleCache":
    """Open a cache for reading; only its index is read.

    Raises:
        DataError: The file is missing, truncated, or of another version.
    """
    return SampleCache(path)


class SampleCache:
    """The decoded samples of a data set, memory-mapped. Pickles as its path and opens again elsewhere.

    Attributes:
        path: The cache file.
        hw: Height and width of every sample, in pixels.
        names, class_names, splits, groups: One string per sample.
        original_hw: `(N, 2) int32`, each image's height and width on disk.
        fingerprint: sha256 (hex) of all pixels and their splits, independent of paths, names and times.
        mask_rule: How the masks were read.
        warnings: Oddities found while decoding, one line each.
        unproven_turns: EXIF orientation by sample, where only pixels show whether the mask was turned like its image.
        leaks: Images of val and test that are also in an earlier split, exactly or nearly.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._map = pa.memory_map(str(self.path), "r")
            self._reader = pa.ipc.open_file(self._map)
            tail = self._reader.get_batch_with_custom_metadata(self._reader.num_record_batches - 1)[1]
            head, tail = _decode_metadata(self._reader.schema.metadata), _decode_metadata(tail)
        except FileNotFoundError as error:
            raise DataError(f"{self.path}: no such cache; build it again") from error
        except (OSError, pa.ArrowException, LookupError, ValueError, TypeError) as error:
            raise DataError(f"{self.path}: not a whole cache ({error}); delete it and build it again") from error
        if head.get("format_version") != FORMAT_VERSION:
            raise DataError(f"{self.path}: a cache of another version; delete it and build it again")
        self.hw: tuple[int, int] = (head["height"], head["width"])
        self.fingerprint: str = tail["fingerprint"]
        self.mask_rule = MaskRule.from_tree(tail["mask_rule"])
        self.warnings: tuple[str, ...] = tuple(tail["warnings"])
        self.leaks: tuple[Leak, ...] = tuple(Leak(*row) for row in tail["leaks"])
        self.unproven_turns: dict[int, int] = {int(i): int(turn) for i, turn in tail["unproven_turns"]}
        self._rows_per_batch: int = head["rows_per_batch"]
        self._views: list[tuple[ByteArray, ByteArray] | None] = [None] * (self._reader.num_record_batches - 1)
        columns: dict[str, list[Any]] = defaultdict(list)
        for number in range(len(self._views)):
            batch = self._reader.get_batch(number)
            for name in (*TEXT_COLUMNS, "height", "width"):
                columns[name] += batch.column(name).to_pylist()
        self.names, self.class_names, self.splits, self.groups = (columns[name] for name in TEXT_COLUMNS)
        self.original_hw = np.array([columns["height"], columns["width"]], dtype=np.int32).T
        if len(self.names) != head["num_samples"]:
            raise DataError(f"{self.path}: holds {len(self.names)} of {head['num_samples']} samples; delete it")

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> ByteArray:
        """Sample `i`'s image: `(H, W, 3) uint8`, a read-only view of the mapped file."""
        number, row = self._locate(i)
        image: ByteArray = self._view(number)[0][row]
        return image

    def mask(self, i: int) -> ByteArray:
        """Sample `i`'s mask: `(H, W) uint8` of 0 and 1, a read-only view of the mapped file."""
        number, row = self._locate(i)
        mask: ByteArray = self._view(number)[1][row]
        return mask

    def indices(self, split: Split) -> list[int]:
        """Indices of the samples in a split, ascending."""
        return [i for i, found in enumerate(self.splits) if found == split]

    def close(self) -> None:
        """Close the file; views that were returned stay valid."""
        self._views = [None] * len(self._views)
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[Path], "SampleCache"], tuple[Path]]:
        return open_cache, (self.path,)

    def _locate(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        return divmod(i, self._rows_per_batch)

    def _view(self, number: int) -> tuple[ByteArray, ByteArray]:
        found = self._views[number]
        if found is None:
            batch, (height, width) = self._reader.get_batch(number), self.hw
            images = np.frombuffer(batch.column("image").buffers()[1], np.uint8)
            masks = np.frombuffer(batch.column("mask").buffers()[1], np.uint8)
            rows = batch.num_rows
            found = self._views[number] = (
                images[: rows * height * width * 3].reshape(rows, height, width, 3),
                masks[: rows * height * width].reshape(rows, height, width),
            )
        return found


def cache_schema(hw: tuple[int, int], rows_per_batch: int, num_samples: int) -> pa.Schema:
    """The columns and the head of a cache.

    Args:
        hw: Height and width of every sample, in pixels.
        rows_per_batch: Samples per batch, at least 1.
        num_samples: Samples in the whole file.
    """
    height, width = hw
    head = {
        "format_version": FORMAT_VERSION,
        "height": height,
        "width": width,
        "rows_per_batch": rows_per_batch,
        "num_samples": num_samples,
    }
    fields = [("image", pa.binary(height * width * 3)), ("mask", pa.binary(height * width))]
    fields += [(name, pa.string()) for name in TEXT_COLUMNS] + [("height", pa.int32()), ("width", pa.int32())]
    return pa.schema(fields, metadata=encode_metadata(head))


def encode_metadata(values: Mapping[str, Any]) -> dict[str, str]:
    """Pack values into the metadata of a schema or a batch."""
    return {"segsearch": json.dumps(values)}


def _decode_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(metadata[b"segsearch"]))
