"""One image with its mask, and the list of them that forms a data set."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Pair:
    """An image and its mask on disk, before groups and splits are assigned.

    Attributes:
        name: Posix path of the image relative to its image folder, without suffix; unique within its split.
        image: Absolute path of the image.
        mask: Absolute path of the mask.
        split: The split that the data set itself gives, or None.
        class_name: First class folder, or the CSV's class; empty when there is none.
        group: The CSV's group, or None.
    """

    name: str
    image: Path
    mask: Path
    split: Split | None
    class_name: str
    group: str | None = None


@dataclass(frozen=True)
class Sample:
    """An image and its mask, with the split and the group they belong to.

    Attributes:
        name: Posix path of the image relative to its image folder, without suffix; unique within its split.
        image: Absolute path of the image.
        mask: Absolute path of the mask.
        split: The split it is used in.
        class_name: First class folder, or the CSV's class; empty when there is none.
        group: Samples of one group stay in one split; the name itself when nothing is grouped.
    """

    name: str
    image: Path
    mask: Path
    split: Split
    class_name: str
    group: str


@dataclass(frozen=True)
class DatasetIndex:
    """Every sample of a data set.

    Attributes:
        root: Absolute path of the folder or CSV file.
        layout: How images and masks were paired: `split_folders`, `flat`, `suffix` or `csv`.
        samples: In the order train, val, test, by name within a split.
        warnings: Oddities the user should know about, one line each.
        given_splits: Splits that came with the data; the others are carved.
    """

    root: str
    layout: str
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...]
    given_splits: tuple[Split, ...] = ()

    def split(self, name: Split) -> list[Sample]:
        """The samples of one split."""
        return [sample for sample in self.samples if sample.split == name]

    def counts(self) -> dict[str, int]:
        """Number of samples per split; all three splits are keys."""
        found = Counter(sample.split for sample in self.samples)
        return {split: found[split] for split in SPLITS}
