"""Assigns pairs to train, val and test: the data set's own splits first, the missing ones carved by file.

A file's split depends on a hash of its group's name and the seed, so a file that is added later moves few others.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from segcore.config import DataConfig
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.samples import (
    SPLITS,
    Pair,
    Sample,
    Split,
)
from segcore.errors import ConfigError, DataError

AUTO_TEST_FRACTION = 0.15
MIN_TEST_IMAGES = 50
MIN_TEST_GROUPS = 5
"""`data.test_fraction: auto` holds out `AUTO_TEST_FRACTION` where that gives at least this many images and groups."""


def assign_groups(pairs: Sequence[Pair], relative_paths: Sequence[str], group_by: str | None) -> list[Pair]:
    """Give every pair its group: the CSV's, else what `group_by` finds in its path, else none.

    Args:
        pairs: All pairs.
        relative_paths: Posix path of each pair's image relative to the data set's root.
        group_by: Regular expression; its first group, or the whole match, names the group.

    Raises:
        ConfigError: `group_by` is not a regular expression.
        DataError: `group_by` does not match some of the paths.
    """
    if group_by is None:
        return list(pairs)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ConfigError(f"data.group_by: {group_by!r} is not a regular expression: {error}") from error
    problems, grouped = Problems(), []
    for pair, path in zip(pairs, relative_paths, strict=True):
        if pair.group is not None:
            grouped.append(pair)
            continue
        match = pattern.search(path)
        if match is None:
            problems.error(f"images whose path does not match data.group_by ({group_by!r})", path)
            continue
        found = match.group(1) if pattern.groups else match.group(0)
        grouped.append(replace(pair, group=found if found is not None else match.group(0)))
    problems.raise_if_any("with data.group_by")
    return grouped


def assign_splits(pairs: Sequence[Pair], config: DataConfig, problems: Problems) -> list[Sample]:
    """Keep the data set's own splits and carve the missing ones from its training files.

    Without any split, everything is training files. Validation files are carved when there are none, test files
    when there are none and `test_fraction` is above 0; each class folder gives its share, groups stay whole, and the
    fractions are of all training files. With `test_fraction: auto`, test files are carved only from data without a
    val split, and only where `auto_test_fraction` finds enough of it. A warning names groups that the data set itself
    spreads over splits.

    Args:
        pairs: All pairs, with groups; all or none of them with a split.
        config: Fractions and seed.
        problems: Collects the warnings.

    Returns:
        Samples in the order train, val, test, by name within a split.

    Raises:
        DataError: There is no training data, or too little to carve from.
    """
    splits: list[Split] = [pair.split or "train" for pair in pairs]
    given = Counter(splits)
    if not given["train"]:
        raise DataError(f"there are no training images, only {dict(given)}; add a `train` split")
    _warn_of_spread_groups(pairs, splits, problems)
    pool_size = given["train"]
    test_fraction = config.test_fraction
    if test_fraction == "auto":
        test_fraction = 0.0 if given["val"] else auto_test_fraction(pairs, config.val_fraction)
    fractions: dict[Split, float] = {"test": test_fraction, "val": config.val_fraction}
    for split, fraction in fractions.items():
        if given[split] or fraction == 0.0:
            continue
        pool = [i for i, found in enumerate(splits) if found == "train"]
        for i in _carve([pairs[i] for i in pool], pool, fraction * pool_size, f"{config.seed}/{split}", split):
            splits[i] = split
    samples = [
        Sample(pair.name, pair.image, pair.mask, split, pair.class_name, _group_of(pair))
        for pair, split in zip(pairs, splits, strict=True)
    ]
    return sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.name))


def auto_test_fraction(pairs: Sequence[Pair], val_fraction: float) -> float:
    """The share to hold out for the final test: 15 % where that is at least 50 images of 5 groups, else 0.

    With fewer, the interval of the test score is too wide, and the images are more useful in training and validation.
    The result depends only on the arguments, so that a resumed run gets the same.
    """
    num_groups = len({_group_of(pair) for pair in pairs})
    fits = val_fraction + AUTO_TEST_FRACTION < 1.0
    enough = round(AUTO_TEST_FRACTION * len(pairs)) >= MIN_TEST_IMAGES
    return AUTO_TEST_FRACTION if fits and enough and AUTO_TEST_FRACTION * num_groups >= MIN_TEST_GROUPS else 0.0


def halves(samples: Sequence[Sample], seed: int) -> list[int]:
    """The half of each sample, 0 or 1, by seed and name: classes are balanced, groups stay whole.

    All are 0 where there is only one group.
    """
    pairs = [Pair(s.name, s.image, s.mask, None, s.class_name, s.group) for s in samples]
    if len({pair.group for pair in pairs}) < 2:
        return [0] * len(samples)
    second = set(_carve(pairs, range(len(pairs)), len(pairs) / 2, f"{seed}/halves", "val"))
    return [int(i in second) for i in range(len(pairs))]


def _group_of(pair: Pair) -> str:
    return pair.name if pair.group is None else pair.group


def _warn_of_spread_groups(pairs: Sequence[Pair], splits: Sequence[Split], problems: Problems) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for pair, split in zip(pairs, splits, strict=True):
        if pair.group is not None:
            where[pair.group].add(split)
    for group, found in where.items():
        if len(found) > 1:
            kind = "groups of data.group_by lie in more than one split, so scores may flatter"
            problems.warn(kind, f"{group!r} in {', '.join(sorted(found))}")


def _carve(pairs: Sequence[Pair], indices: Sequence[int], target: float, salt: str, split: str) -> list[int]:
    """Choose about `target` of the files, in whole groups, with each class giving its share.

    The shares are rounded so that they sum to the target (largest remainder), so that many small classes still
    give some files.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for pair, index in zip(pairs, indices, strict=True):
        members[_group_of(pair)].append(index)
    if len(members) < 2:
        what = "group" if any(pair.group is not None for pair in pairs) else "image"
        raise DataError(
            f"cannot carve a {split} split from {len(members)} training {what}; at least 2 are needed, "
            f"or give the data a {split} split of its own"
        )
    class_of = {index: pair.class_name for pair, index in zip(pairs, indices, strict=True)}
    order = sorted(members, key=lambda group: (_hash(f"{salt}/{group}"), group))
    by_class: dict[str, list[str]] = defaultdict(list)
    for group in order:
        by_class[Counter(class_of[i] for i in members[group]).most_common(1)[0][0]].append(group)

    share = target / len(pairs)
    wanted = {name: share * sum(len(members[g]) for g in groups) for name, groups in by_class.items()}
    quota = {name: int(amount) for name, amount in wanted.items()}
    missing = max(1, round(target)) - sum(quota.values())
    by_remainder = sorted(wanted, key=lambda name: (quota[name] - wanted[name], _hash(f"{salt}//{name}")))
    for name in by_remainder[: max(0, missing)]:
        quota[name] += 1

    chosen: list[str] = []
    for name, groups in by_class.items():
        left = quota[name]
        for group in groups:
            size = len(members[group])
            # A group may exceed the quota when that ends closer to it than leaving the group out.
            if left > 0 and size - left <= left:
                chosen.append(group)
                left -= size
    if not chosen:
        chosen = [min(order, key=lambda group: len(members[group]))]
    if len(chosen) == len(members):
        chosen.remove(max(chosen, key=lambda group: len(members[group])))
    return [index for group in chosen for index in members[group]]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
