from collections import Counter
from pathlib import Path

import pytest

from segcore.config import DataConfig
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.samples import Pair, Sample, Split
from segcore.data.pairs.splits import assign_groups, assign_splits
from segcore.errors import ConfigError, DataError


def pairs(counts: dict[str, int], split: Split | None = None) -> list[Pair]:
    return [
        Pair(f"{name}/{i:04d}", Path(f"{name}/{i}.jpg"), Path(f"{name}/{i}.png"), split, name)
        for name, count in counts.items()
        for i in range(count)
    ]


def assign(given: list[Pair], **settings: object) -> list[Sample]:
    return assign_splits(given, DataConfig(**settings), Problems())


def counts(samples: list[Sample]) -> dict[str, int]:
    return dict(Counter(sample.split for sample in samples))


def test_a_fraction_of_each_class_validates() -> None:
    samples = assign(pairs({"a": 100, "b": 50, "c": 10}), val_fraction=0.2, test_fraction=0.1)
    by_class = Counter((sample.class_name, sample.split) for sample in samples)
    assert {name: by_class[name, "val"] for name in "abc"} == {"a": 20, "b": 10, "c": 2}
    assert {name: by_class[name, "test"] for name in "abc"} == {"a": 10, "b": 5, "c": 1}
    assert len({sample.name for sample in samples}) == 160


def test_many_tiny_classes_still_give_their_share_together() -> None:
    samples = assign(pairs({f"c{i}": 2 for i in range(50)}), val_fraction=0.2)
    assert counts(samples) == {"train": 80, "val": 20}


@pytest.mark.parametrize("total", [2, 3, 4, 7])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_there_is_always_something_to_train_on_and_to_validate(total: int, fraction: float) -> None:
    found = counts(assign(pairs({"a": total}), val_fraction=fraction))
    assert found["train"] >= 1
    assert found["val"] >= 1


def test_the_split_follows_the_seed_and_nothing_else() -> None:
    given = pairs({"a": 40})
    first = assign(given, seed=1)
    assert assign(list(reversed(given)), seed=1) == first
    assert assign(given, seed=2) != first


def test_a_file_that_is_added_moves_few_others() -> None:
    before = {sample.name: sample.split for sample in assign(pairs({"a": 100}))}
    after = {sample.name: sample.split for sample in assign(pairs({"a": 101}))}
    assert sum(after[name] != split for name, split in before.items()) <= 2


def test_the_validation_share_does_not_move_the_test_files() -> None:
    held_out = [
        [s.name for s in assign(pairs({"a": 50}), val_fraction=share, test_fraction=0.2) if s.split == "test"]
        for share in (0.1, 0.3)
    ]
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) == 10


def test_given_splits_are_kept_and_only_missing_ones_are_carved() -> None:
    train, val, test = (pairs({"a": n}, split) for n, split in ((20, "train"), (4, "val"), (3, "test")))
    assert counts(assign(train + val + test, test_fraction=0.5, val_fraction=0.4)) == {"train": 20, "val": 4, "test": 3}
    assert counts(assign(train + val, test_fraction=0.25)) == {"train": 15, "val": 4, "test": 5}
    assert counts(assign(train + test, val_fraction=0.25)) == {"train": 15, "val": 5, "test": 3}
    assert counts(assign(train, val_fraction=0.25)) == {"train": 15, "val": 5}


@pytest.mark.parametrize(("total", "held_out"), [(329, 0), (330, 50), (400, 60), (12, 0)])
def test_a_test_split_is_carved_unasked_where_it_has_at_least_fifty_images(total: int, held_out: int) -> None:
    found = assign(pairs({"a": total}))
    assert counts(found).get("test", 0) == held_out
    assert assign(pairs({"a": total}), test_fraction=0.0) != found or not held_out
    assert assign(pairs({"a": total}), test_fraction=0.15 if held_out else 0.0) == found


def test_given_splits_are_not_carved_unasked() -> None:
    train, val, test = (pairs({"a": n}, split) for n, split in ((900, "train"), (90, "val"), (60, "test")))
    assert counts(assign(train + val)) == {"train": 900, "val": 90}
    assert counts(assign(train + val + test)) == {"train": 900, "val": 90, "test": 60}
    assert counts(assign(train, val_fraction=0.2)) == {"train": 585, "val": 180, "test": 135}


def test_no_test_split_is_carved_unasked_from_few_groups_or_beside_a_large_val_split() -> None:
    assert counts(assign(grouped(33, 20)))["train"] > 500
    assert "test" not in counts(assign(grouped(33, 20)))
    assert counts(assign(grouped(34, 20)))["test"] == 100
    assert "test" not in counts(assign(pairs({"a": 1000}), val_fraction=0.85))


def grouped(num_groups: int, size: int, group_by: str = r"^(\w+)-") -> list[Pair]:
    given = [
        Pair(f"v{g}-{i}", Path(f"v{g}-{i}.jpg"), Path(f"v{g}-{i}.png"), None, "")
        for g in range(num_groups)
        for i in range(size)
    ]
    return assign_groups(given, [str(pair.image) for pair in given], group_by)


@pytest.mark.parametrize("group_by", [r"^(\w+)-", r"^v\d+"])
def test_groups_are_never_torn(group_by: str) -> None:
    samples = assign(grouped(10, 7, group_by), val_fraction=0.2, test_fraction=0.2)
    where: dict[str, set[str]] = {}
    for sample in samples:
        where.setdefault(sample.group, set()).add(sample.split)
    assert set(where) == {f"v{i}" for i in range(10)}
    assert all(len(splits) == 1 for splits in where.values())
    assert counts(samples) == {"train": 42, "val": 14, "test": 14}


def test_a_group_larger_than_the_share_is_taken_whole_when_there_is_no_other() -> None:
    assert counts(assign(grouped(2, 10), val_fraction=0.2)) == {"train": 10, "val": 10}


def test_groups_that_the_data_itself_spreads_are_warned_of() -> None:
    given = [
        Pair("v1-1", Path("v1-1.jpg"), Path("m"), "train", "", "v1"),
        Pair("v1-2", Path("v1-2.jpg"), Path("m"), "val", "", "v1"),
        Pair("v2-1", Path("v2-1.jpg"), Path("m"), "train", "", "v2"),
    ]
    problems = Problems()
    assign_splits(given, DataConfig(), problems)
    (warning,) = problems.warnings()
    assert warning.startswith("1 groups of data.group_by lie in more than one split")
    assert "'v1' in train, val" in warning


def test_a_bad_pattern() -> None:
    with pytest.raises(ConfigError, match=r"data\.group_by: '\(' is not a regular expression: missing \)"):
        grouped(1, 1, "(")
    with pytest.raises(
        DataError, match=r"4 images whose path does not match data\.group_by \('nothing'\):\n +v0-0\.jpg"
    ):
        grouped(2, 2, "nothing")


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (pairs({"a": 1}), {}, r"cannot carve a val split from 1 training image; at least 2 are needed"),
        (pairs({"a": 2}), {"test_fraction": 0.3}, r"cannot carve a val split from 1 training image"),
        (grouped(1, 9), {}, r"cannot carve a val split from 1 training group"),
        (pairs({"a": 3}, "val"), {}, r"there are no training images, only {'val': 3}"),
    ],
)
def test_too_little_data(given: list[Pair], settings: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        assign(given, **settings)
