"""Finds a data set's images and masks, pairs them, and assigns splits. Names only; pixels are read by the cache."""

from collections import Counter
from itertools import islice
from pathlib import Path

from segcore.config import DataConfig
from segcore.data.pairs.checks import Problems, printable
from segcore.data.pairs.listing import is_utf8, normalise
from segcore.data.pairs.samples import (
    SPLITS,
    DatasetIndex,
    Pair,
    Sample,
)
from segcore.data.pairs.splits import assign_groups, assign_splits
from segcore.errors import DataError, NoDataError
from segcore.registries import LAYOUTS

SYNTHETIC_ROOT = "synthetic"
_MAX_FILES_COUNTED = 20_000  # for the message about a folder that holds something else


def discover(config: DataConfig, *, carve: bool = True) -> DatasetIndex:
    """Find and pair the images and masks of `config.root` and assign each pair to a split.

    The layouts are those of `DataConfig.layout`; `auto` takes the first that fits, in the order CSV file, split
    folders, flat folders, paired suffix, one CSV in the folder. Only names are read, so this is fast; when names have
    errors, the pairs that were found are decoded too, so that all problems are reported at once. With
    `group_duplicates`, the images that splits are carved from are decoded as well.

    Args:
        config: Root, layout, fractions, groups and seed.
        carve: True for a set to train on: missing splits are carved from its training files. False for a set to
            score on: splits are kept as they are, and files without one are all `test`.

    Returns:
        The samples and warnings about them.

    Raises:
        ConfigError: `group_by` is not a regular expression.
        DataError: No data was found, or names have errors; the message lists everything.
    """
    problems = Problems()
    try:
        root, layout, pairs = _pair_files(config, problems)
    except OSError as error:
        raise DataError(f"data.root = {config.root!r} cannot be read: {error}") from error
    if problems.errors:
        # Imported here: only the error path needs pixels.
        from segcore.data.pixels.surveying import inspect_pairs

        problems.extend(inspect_pairs(pairs, root, config.foreground_values))
    problems.raise_if_any(str(root))
    if not pairs:
        raise NoDataError(_nothing_found(root, config, layout))

    base = root.parent if root.is_file() else root
    pairs = assign_groups(pairs, [_relative(pair.image, base) for pair in pairs], config.group_by)
    if carve and config.group_duplicates:
        # Imported here: only this needs pixels.
        from segcore.data.pairs.duplicates import group_duplicates

        pairs = group_duplicates(pairs, config)
    samples = assign_splits(pairs, config, problems) if carve else _as_they_are(pairs)
    given = tuple(split for split in SPLITS if any(pair.split == split for pair in pairs))
    return DatasetIndex(str(root), layout, tuple(samples), problems.warnings(), given)


def _pair_files(config: DataConfig, problems: Problems) -> tuple[Path, str, list[Pair]]:
    """The folder or file that was read, its layout, and its pairs."""
    root = _root_of(config)
    layout = LAYOUTS[_detect(root, config) if config.layout == "auto" else config.layout]
    if layout.build.file_of is not None:
        root = layout.build.file_of(root)
    elif root.is_file():
        raise DataError(f"data.layout is {layout.name!r}, which needs a folder, but data.root is the file {root}")
    return root, layout.name, layout.build.pair(root, problems, **layout.arguments(config))


def _as_they_are(pairs: list[Pair]) -> list[Sample]:
    samples = [
        Sample(p.name, p.image, p.mask, p.split or "test", p.class_name, p.name if p.group is None else p.group)
        for p in pairs
    ]
    return sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.name))


def _root_of(config: DataConfig) -> Path:
    if config.root == SYNTHETIC_ROOT:
        from segcore.data.synthetic import ensure_synthetic

        return ensure_synthetic(config)
    root = Path(config.root).expanduser().absolute()
    if not is_utf8(str(root)):
        raise DataError(f"data.root = {printable(str(root))}: the name is not UTF-8; rename the folder, or link to it")
    if not root.exists():
        raise NoDataError(_nothing_found(root, config, None))
    return root


def _detect(root: Path, config: DataConfig) -> str:
    for layout in LAYOUTS:
        fits = root.is_dir() or layout.build.file_of is not None
        if fits and layout.build.detect(root, **layout.arguments(config)):
            return layout.name
    if root.is_file():
        raise NoDataError(f"data.root is the file {root}; it must be a folder or a .csv of pairs")
    raise NoDataError(_nothing_found(root, config, None))


def _relative(path: Path, base: Path) -> str:
    return normalise(path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix())


def _nothing_found(root: Path, config: DataConfig, layout: str | None) -> str:
    if not root.exists():
        seen = "the folder does not exist"
    elif root.is_dir() and not any(root.iterdir()):
        seen = "the folder is empty"
    else:
        entries = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir()) if root.is_dir() else []
        files_below = islice((p for p in root.rglob("*") if p.is_file()), _MAX_FILES_COUNTED) if entries else iter(())
        counts = Counter(p.suffix.lower() or "without suffix" for p in files_below)
        more = f" and {len(entries) - 8} more" if len(entries) > 8 else ""
        files = ", ".join(f"{n} {suffix}" for suffix, n in counts.most_common(5)) or "none"
        seen = f"it holds {', '.join(entries[:8])}{more} (files: {files})"
    looked_for = LAYOUTS if layout is None else [LAYOUTS[layout]]
    lines = [f"no images with masks found at data.root = {config.root!r}", f"  looked in: {root}; {seen}"]
    for each in looked_for:
        form = each.build.form.format(**each.arguments(config))
        lines.append(f"  looked for layout {each.name}: {form}")
    return "\n".join(lines)
