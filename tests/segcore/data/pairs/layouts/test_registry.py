"""Every layout is found out by itself, paired, refused where it is not, and told in the README."""

from collections.abc import Callable
from pathlib import Path

import pytest
from data_folders import write_flat, write_pair, write_split
from places import ROOT

from segcore.config import DataConfig
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.discovery import discover
from segcore.errors import DataError
from segcore.registries import LAYOUTS


def _suffix(root: Path) -> None:
    for number in range(4):
        write_pair(root / f"{number}.jpg", root / f"{number}_mask.png")


def _csv(root: Path) -> None:
    for number in range(4):
        write_pair(root / "a" / f"{number}.jpg", root / "b" / f"{number}.png")
    rows = "".join(f"a/{number}.jpg,b/{number}.png\n" for number in range(4))
    (root / "pairs.csv").write_text(f"image,mask\n{rows}")


MAKERS: dict[str, Callable[[Path], object]] = {
    "split_folders": lambda root: write_split(root, {"train": 2, "val": 1, "test": 1}),
    "flat": lambda root: write_flat(root, 4),
    "suffix": _suffix,
    "csv": _csv,
}


@pytest.mark.parametrize("name", LAYOUTS.names)
def test_a_layout_is_known_and_paired(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    index = discover(DataConfig(root=str(tmp_path)))
    assert index.layout == name
    assert len(index.samples) >= 4
    assert discover(DataConfig(root=str(tmp_path), layout=name)).samples == index.samples


@pytest.mark.parametrize("name", LAYOUTS.names)
def test_a_layout_is_not_seen_in_an_empty_folder(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    settings = layout.arguments(DataConfig())
    assert not layout.build.detect(tmp_path, **settings)
    if layout.build.file_of is None:
        problems = Problems()
        assert layout.build.pair(tmp_path, problems, **settings) == []
    with pytest.raises(DataError, match=r"no images with masks found|holds 0 CSV files"):
        discover(DataConfig(root=str(tmp_path), layout=name))


@pytest.mark.parametrize("name", LAYOUTS.names)
def test_the_readme_tells_of_it(name: str) -> None:
    assert f"| `{name}` | {LAYOUTS[name].summary} |\n" in (ROOT / "README.md").read_text(encoding="utf-8")
