"""Groups nearly identical images before splits are made, so that they end up in the same split."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from segcore.config import DataConfig
from segcore.data.pairs.likeness import Likeness, group_alike, likeness_of
from segcore.data.pairs.samples import Pair
from segcore.data.pixels.content import num_cpus
from segcore.data.pixels.decode import UnreadableFileError, read_image


def group_duplicates(pairs: Sequence[Pair], config: DataConfig) -> list[Pair]:
    """Join the groups of nearly identical images, among the images that splits are carved from.

    Images are decoded at the size of the cache, so that the cache finds the same images similar. Unreadable files stay
    alone; the cache reports them. Splits that came with the data are not changed, and where val and test are both
    given nothing is decoded.
    """
    splits = {pair.split for pair in pairs}
    pool = [i for i, pair in enumerate(pairs) if pair.split in (None, "train")]
    if {"val", "test"} <= splits:
        return list(pairs)

    def look(i: int) -> Likeness | None:
        try:
            return likeness_of(read_image(pairs[i].image, config.image_hw))
        except UnreadableFileError:
            return None

    with ThreadPoolExecutor(num_cpus(), thread_name_prefix="decode") as threads:
        seen = {i: found for i, found in zip(pool, threads.map(look, pool), strict=True) if found is not None}
    before = [_group_of(pairs[i]) for i in seen]
    grouped = list(pairs)
    joined = {old: new for old, new in zip(before, group_alike(list(seen.values()), before), strict=True) if old != new}
    heads = set(joined.values())
    for i in pool:
        group = _group_of(pairs[i])
        if group in joined or group in heads:
            grouped[i] = replace(pairs[i], group=joined.get(group, group))
    return grouped


def _group_of(pair: Pair) -> str:
    return pair.name if pair.group is None else pair.group
