"""Warnings about images that are in two splits, exactly or nearly: they make scores optimistic."""

from collections import Counter, defaultdict

from segcore.data.pairs.checks import MAX_EXAMPLES
from segcore.data.pairs.likeness import Leak
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.cache_file import SampleCache


def leak_warnings(cache: SampleCache, index: DatasetIndex) -> list[str]:
    """The warnings about `cache.leaks`, one line per pair of splits."""
    by_splits: dict[tuple[str, str], list[Leak]] = defaultdict(list)
    for leak in cache.leaks:
        by_splits[cache.splits[leak.sample], cache.splits[leak.twin]].append(leak)
    lines = []
    for (later, earlier), leaks in by_splits.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(leak.kind for leak in leaks).items())
        examples = [f"{cache.names[leak.sample]} = {cache.names[leak.twin]}" for leak in leaks[:MAX_EXAMPLES]]
        examples += [f"and {len(leaks) - MAX_EXAMPLES} more"] if len(leaks) > MAX_EXAMPLES else []
        lines.append(
            f"{len(leaks)} of {cache.splits.count(later)} {later} images are in {earlier} too ({kinds}), so their "
            f"scores flatter: {', '.join(examples)}; {_way_out(index, later, earlier)}"
        )
    return lines


def leak_counts(cache: SampleCache) -> dict[str, int]:
    """Number of leaking images by where they are, such as `{"val in train": 3}`."""
    return dict(Counter(f"{cache.splits[leak.sample]} in {cache.splits[leak.twin]}" for leak in cache.leaks))


def _way_out(index: DatasetIndex, later: str, earlier: str) -> str:
    given = [split for split in (later, earlier) if split in index.given_splits and split != "train"]
    if not given:  # whatever came as train is what other splits are made from
        return "to keep such images in one split: --set data.group_duplicates=true"
    return f"the {given[0]} split came with the data and is kept as it is: take these images out of one of the two"
