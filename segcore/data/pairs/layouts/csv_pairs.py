"""Layout `csv`, a table of pairs: columns `image` and `mask`, and optionally `split`, `class` and `group`."""

import csv
import io
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from segcore.component import Component
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.listing import normalise
from segcore.data.pairs.pairing import SPLIT_NAMES
from segcore.data.pairs.samples import Pair, Split
from segcore.errors import DataError
from segcore.registries import Layout

REQUIRED_COLUMNS = ("image", "mask")
OPTIONAL_COLUMNS = ("split", "class", "group")


_SUFFIXES = frozenset({".csv", ".tsv"})


def is_csv(root: Path) -> bool:
    """Whether `root` is a CSV, or a folder that holds exactly one."""
    return root.suffix.lower() in _SUFFIXES if root.is_file() else len(_csv_files(root)) == 1


def find_csv(root: Path) -> Path:
    """The file itself, or the one CSV of a folder.

    Raises:
        DataError: The folder holds none, or several.
    """
    if root.is_file():
        return root
    found = _csv_files(root)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"data.layout is 'csv', but {root} holds {len(found)} CSV files ({names}); name one as data.root"
        )
    return found[0]


def _csv_files(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def pair_csv(path: Path, problems: Problems) -> list[Pair]:
    """Read the pairs of a CSV file (comma, semicolon or tab; UTF-8), paths relative to its folder.

    Args:
        path: The CSV file.
        problems: Collects missing files, duplicate rows, unknown and missing splits.

    Returns:
        Pairs in the file's order.

    Raises:
        DataError: The file cannot be read as CSV, or lacks a column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a CSV of pairs in UTF-8: {error}") from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    with _readable(path, rows):
        columns = [name.strip().lower() for name in rows.fieldnames or []]
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{path}: lacks the column {' and '.join(map(repr, missing))}; found {columns}; needed are "
            f"{list(REQUIRED_COLUMNS)}, optional are {list(OPTIONAL_COLUMNS)}"
        )
    rows.fieldnames = columns
    pairs: list[Pair] = []
    image_of_mask: dict[Path, str] = {}
    seen: dict[tuple[Split | None, str], int] = {}
    without_split = 0
    with _readable(path, rows):
        table = [(rows.line_num, row) for row in rows]
    for line, row in table:
        where = f"line {line}"
        cells = {name: (row.get(name) or "").strip() for name in REQUIRED_COLUMNS + OPTIONAL_COLUMNS}
        if not cells["image"] or not cells["mask"]:
            problems.error("CSV rows without an image or a mask", where)
            continue
        image, mask = _find(path.parent, cells["image"]), _find(path.parent, cells["mask"])
        for kind, name, found in (("images", cells["image"], image), ("masks", cells["mask"], mask)):
            if found is None:
                problems.error(f"{kind} named in the CSV that do not exist below {path.parent}", f"{name} ({where})")
        split = SPLIT_NAMES.get(cells["split"].lower())
        if cells["split"] and split is None:
            problems.error("CSV rows with an unknown split (valid: train, val, test)", f"{cells['split']!r} ({where})")
        without_split += not cells["split"]
        posix = PurePosixPath(cells["image"].replace("\\", "/"))
        name = normalise(posix.as_posix().removesuffix(posix.suffix))
        if (split, name) in seen:
            problems.error(
                "images listed twice (suffixes aside)", f"{cells['image']} ({where} and line {seen[split, name]})"
            )
            continue
        seen[split, name] = line
        if image is not None and mask is not None:
            if (other := image_of_mask.setdefault(mask, cells["image"])) != cells["image"]:
                problems.error(
                    "masks that two images share (if that is meant, give each image a copy or a link of it)",
                    f"{cells['mask']} of {other} and {cells['image']} ({where})",
                )
            pairs.append(Pair(name, image, mask, split, cells["class"], cells["group"] or None))
    if without_split and any(split for split, _ in seen):
        problems.error("CSV rows without a split beside rows with one", f"{without_split} rows of {path.name}")
    return pairs


@contextmanager
def _readable(path: Path, rows: "csv.DictReader[str]") -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a CSV of pairs, after line {rows.line_num}: {error}") from error


def _find(folder: Path, name: str) -> Path | None:
    """Look for a CSV's path as written, with Windows separators read as such, and in both Unicode spellings."""
    for separated in (name, name.replace("\\", "/")):
        for spelling in (separated, unicodedata.normalize("NFC", separated), unicodedata.normalize("NFD", separated)):
            if os.path.lexists(folder / spelling):  # what is no file, the decoder names
                return folder / spelling
    return None


COMPONENT = Component(
    "csv",
    "a `.csv` with the columns `image`, `mask`, and if you like `split`, `class`, `group`",
    Layout(
        short="a CSV",
        form="one .csv with the columns image, mask and, if wanted, split, class, group",
        detect=is_csv,
        pair=pair_csv,
        file_of=find_csv,
    ),
    order=40,
)
