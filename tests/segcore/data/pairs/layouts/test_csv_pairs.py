from pathlib import Path

import pytest
from data_folders import write_pair

from segcore.config import DataConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.cache import build_cache
from segcore.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        write_pair(tmp_path / "pics" / f"{i}.jpg", tmp_path / "truth" / f"m{i}.png", seed=i)
    return tmp_path


def rows(columns: str, cells: list[str], separator: str = ",") -> str:
    lines = [columns] + [f"pics/{i}.jpg,truth/m{i}.png{cell}" for i, cell in enumerate(cells)]
    return "\n".join(lines).replace(",", separator) + "\n"


def read(folder: Path, text: str, **settings: object) -> DatasetIndex:
    path = folder / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return discover(DataConfig(root=str(path), **settings))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_two_columns_are_enough(folder: Path, separator: str, bom: str) -> None:
    index = read(folder, bom + rows("image,mask", [""] * 6, separator))
    assert index.layout == "csv"
    assert index.counts() == {"train": 5, "val": 1, "test": 0}
    assert index.split("val")[0].mask.parent == folder / "truth"


def test_all_columns(folder: Path) -> None:
    cells = [",train,cat,g1", ",train,cat,g1", ",Train,dog,g2", ",valid,cat,g3", ",test,dog,g4", ",test,dog,"]
    index = read(folder, rows("Image,MASK, split,class,group", cells))
    assert index.counts() == {"train": 3, "val": 1, "test": 2}
    assert [(s.name, s.class_name, s.group) for s in index.split("test")] == [
        ("pics/4", "dog", "g4"),
        ("pics/5", "dog", "pics/5"),
    ]


def test_groups_of_the_csv_stay_together(folder: Path) -> None:
    index = read(folder, rows("image,mask,group", [",a", ",a", ",a", ",b", ",b", ",b"]), val_fraction=0.5)
    assert len({sample.group for sample in index.split("val")}) == 1
    assert index.counts()["val"] == 3


def test_a_folder_with_one_csv_is_enough(folder: Path) -> None:
    read(folder, rows("image,mask", [""] * 6))
    assert discover(DataConfig(root=str(folder))).layout == "csv"


def test_absolute_and_windows_paths_and_quoted_names(folder: Path, tmp_path: Path) -> None:
    write_pair(folder / "a, b.jpg", folder / "a, b.png")
    text = f'image,mask\n{folder}/pics/0.jpg,{folder}/truth/m0.png\npics\\1.jpg,truth\\m1.png\n"a, b.jpg","a, b.png"\n'
    names = {sample.name for sample in read(folder, text).samples}
    assert names == {f"{folder}/pics/0", "pics/1", "a, b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,mask\nx,y\n", r"pairs\.csv: lacks the column 'image'; found \['picture', 'mask'\]"),
        ("", r"pairs\.csv: lacks the column 'image' and 'mask'; found \[\]"),
        (
            "image,mask\npics/9.jpg,truth/m0.png\n",
            r"1 images named in the CSV that do not exist below .*\n +pics/9\.jpg",
        ),
        ("image,mask\npics/0.jpg,\n", r"1 CSV rows without an image or a mask:\n +line 2"),
        (
            "image,mask\npics/0.jpg,truth/m0.png\npics/0.jpg,truth/m1.png\n",
            r"1 images listed twice .*\n +pics/0\.jpg \(line 3 and line 2\)",
        ),
        (
            rows("image,mask,split", [",train", ",train", ",dev"]),
            r"1 CSV rows with an unknown split \(valid: train, val, test\):\n +'dev' \(line 4\)",
        ),
        (
            rows("image,mask,split", [",train", ",train", ",val", ","]),
            r"1 CSV rows without a split beside rows with one",
        ),
        (
            "image,mask\npics/0.jpg,truth/m0.png\npics/1.jpg,truth/m0.png\n",
            r"1 masks that two images share .*:\n +truth/m0\.png of pics/0\.jpg and pics/1\.jpg \(line 3\)",
        ),
        (
            "image,mask\n.,truth/m0.png\npics/1.jpg,truth/m1.png\n",
            r"1 unreadable files:\n +.*: a directory, not an image file",
        ),
        ("image,mask\n" + "x" * 200_000, r"pairs\.csv: cannot be read as a CSV of pairs, after line 1: field larger"),
        ("image,mask\npics/0.jpg,truth/\0.png\n", r"1 masks named in the CSV .*:\n +truth/\\x00\.png \(line 2\)"),
        ("image,mask\n", r"no images with masks found"),
    ],
)
def test_a_bad_csv(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_cache(read(folder, text), DataConfig(cache_dir=str(folder / "cache")))


def test_a_csv_in_another_encoding(folder: Path) -> None:
    (folder / "pairs.csv").write_bytes("image,mask\nöl,é\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"pairs\.csv: cannot be read as a CSV of pairs in UTF-8"):
        discover(DataConfig(root=str(folder / "pairs.csv")))
