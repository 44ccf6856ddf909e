import unicodedata
from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save, write_flat, write_pair, write_split
from PIL import Image

from segcore.config import DataConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.listing import list_images
from segcore.data.pairs.samples import DatasetIndex


def found(root: Path, **settings: object) -> DatasetIndex:
    return discover(DataConfig(root=str(root), **settings))


def test_split_folders_with_classes(tmp_path: Path) -> None:
    write_split(tmp_path, {"train": 3, "val": 1, "test": 2})
    index = found(tmp_path)
    assert index.layout == "split_folders"
    assert index.counts() == {"train": 6, "val": 2, "test": 4}
    assert index.root == str(tmp_path)
    assert index.warnings == ()
    first = index.samples[0]
    assert (first.name, first.split, first.class_name, first.group) == ("a/000", "train", "a", "a/000")
    assert first.image == tmp_path / "train/images/a/000.jpg"
    assert first.mask == tmp_path / "train/gt/a/000.png"
    assert [sample.name for sample in index.split("val")] == ["a/000", "b/000"]


@pytest.mark.parametrize("masks", ["gt", "masks", "labels", "GT", "Masks"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_by_other_names_and_without_classes(tmp_path: Path, masks: str, val: str) -> None:
    for split in ("train", val):
        write_pair(tmp_path / split / "images" / "x.jpg", tmp_path / split / masks / "x.png")
    index = found(tmp_path)
    assert index.counts() == {"train": 1, "val": 1, "test": 0}
    assert {sample.class_name for sample in index.samples} == {""}


def test_what_lies_beside_is_passed_over(tmp_path: Path) -> None:
    write_split(tmp_path, {"train": 2, "val": 1})
    save(tmp_path / "awkward_raw" / "other.png", disk())
    (tmp_path / "SOURCE.txt").write_text("from somewhere")
    images = tmp_path / "train" / "images" / "a"
    for name in (".DS_Store", "._000.jpg", "Thumbs.db", "notes.txt", ".hidden/z.jpg", "../__MACOSX/000.jpg"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"x")
    index = found(tmp_path)
    assert index.counts() == {"train": 4, "val": 2, "test": 0}
    assert index.warnings == ()


@pytest.mark.parametrize("masks", ["masks", "gt", "labels"])
def test_flat_folders(tmp_path: Path, masks: str) -> None:
    write_flat(tmp_path, 10)
    (tmp_path / "masks").rename(tmp_path / masks)
    index = found(tmp_path)
    assert index.layout == "flat"
    assert index.counts() == {"train": 8, "val": 2, "test": 0}


def test_flat_folders_whose_sub_folders_are_splits_keep_them(tmp_path: Path) -> None:
    write_flat(tmp_path, ["train/cat/1", "train/cat/2", "train/dog/1", "valid/cat/1", "test/dog/1"])
    index = found(tmp_path)
    assert index.counts() == {"train": 3, "val": 1, "test": 1}
    assert [(sample.name, sample.class_name) for sample in index.split("val")] == [("cat/1", "cat")]


def test_masks_that_also_carry_the_suffix_are_paired_in_two_folders(tmp_path: Path) -> None:
    for i in range(3):
        write_pair(tmp_path / f"images/{i}.jpg", tmp_path / f"masks/{i}_mask.png")
    # An image whose own name ends like a mask's keeps the mask of the very same name.
    write_pair(tmp_path / "images/odd_mask.jpg", tmp_path / "masks/odd_mask.png")
    assert {s.name: s.mask.name for s in found(tmp_path).samples} == {
        "0": "0_mask.png",
        "1": "1_mask.png",
        "2": "2_mask.png",
        "odd_mask": "odd_mask.png",
    }


def test_paired_suffix(tmp_path: Path) -> None:
    for name in ("x", "y", "deep/z", "deep/w"):
        write_pair(tmp_path / f"{name}.jpg", tmp_path / f"{name}_mask.png")
    index = found(tmp_path)
    assert index.layout == "suffix"
    assert {sample.name for sample in index.samples} == {"x", "y", "deep/z", "deep/w"}
    assert index.samples[0].mask.name == f"{index.samples[0].image.stem}_mask.png"


def test_another_suffix_and_splits_as_folders(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a"):
        write_pair(tmp_path / f"{name}.jpg", tmp_path / f"{name}.seg.png")
    index = found(tmp_path, mask_suffix=".seg")
    assert index.layout == "suffix"
    assert index.counts() == {"train": 2, "val": 1, "test": 0}


AWKWARD_NAMES = [
    "with space",
    "a.b",
    "a.b.c (1)",
    "(parentheses)",
    "лошадь",
    "马",
    'x\' "quoted"',
    "per%cent",
    "a,b;c",
    "-dash",
    "UPPER",
    "[x]*",
]


def test_awkward_names(tmp_path: Path) -> None:
    write_flat(tmp_path, AWKWARD_NAMES)
    index = found(tmp_path)
    assert {sample.name for sample in index.samples} == set(AWKWARD_NAMES)
    assert all(sample.image.stem == sample.mask.stem for sample in index.samples)


@pytest.mark.parametrize(("image_form", "mask_form"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_composed_and_decomposed_names_are_one(tmp_path: Path, image_form: str, mask_form: str) -> None:
    for name in ("Zürich é", "йод"):
        image = unicodedata.normalize(image_form, name)
        write_pair(
            tmp_path / "images" / image / f"{image}.jpg",
            tmp_path / "gt" / unicodedata.normalize(mask_form, name) / f"{unicodedata.normalize(mask_form, name)}.png",
        )
    assert {sample.name for sample in found(tmp_path).samples} == {
        unicodedata.normalize("NFC", f"{name}/{name}") for name in ("Zürich é", "йод")
    }


def test_equal_stems_in_class_folders_are_different_images(tmp_path: Path) -> None:
    write_flat(tmp_path, ["cat/1", "dog/1", "cat/2", "dog/2"])
    index = found(tmp_path)
    assert sorted(sample.name for sample in index.samples) == ["cat/1", "cat/2", "dog/1", "dog/2"]
    assert all(sample.image.parent.name == sample.mask.parent.name for sample in index.samples)


def test_upper_case_extensions_and_mixed_formats(tmp_path: Path) -> None:
    for i, (image, mask) in enumerate([(".JPG", ".PNG"), (".JPEG", ".png"), (".tif", ".gif"), (".bmp", ".TIFF")]):
        for folder, suffix, array in (("images", image, picture(i)), ("masks", mask, disk() * 255)):
            path = tmp_path / folder / f"{i}{suffix}"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.asarray(array)).save(path)
    assert len(found(tmp_path).samples) == 4


def test_links_to_files_and_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_flat(tmp_path / "real", ["a/1", "a/2", "b/1"])
    for kind in ("images", "masks"):
        (tmp_path / "linked" / kind).mkdir(parents=True)
        (tmp_path / "linked" / kind / "a").symlink_to(tmp_path / "real" / kind / "a")
        (tmp_path / "linked" / kind / "loop").symlink_to(tmp_path / "linked" / kind)
    assert {sample.name for sample in found(tmp_path / "linked").samples} == {"a/1", "a/2"}
    assert len(list_images(tmp_path / "linked" / "images").files) == 2


def test_a_given_layout_is_the_only_one_tried(tmp_path: Path) -> None:
    write_split(tmp_path, {"train": 2, "val": 1}, classes=("a",))
    write_flat(tmp_path, 4)
    assert found(tmp_path).layout == "split_folders"
    assert len(found(tmp_path, layout="flat").samples) == 4


def test_test_images_without_masks_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write_split(tmp_path, {"train": 2, "val": 1})
    save(tmp_path / "test" / "images" / "x.png", picture())
    index = found(tmp_path)
    assert index.counts()["test"] == 0
    assert len(index.warnings) == 1
    assert "1 split folders that hold images but not `images` and `gt`" in index.warnings[0]


@pytest.mark.shared
def test_the_real_data_sets(horses_dir: Path, nuclei_dir: Path) -> None:
    horses, nuclei = found(horses_dir), found(nuclei_dir)
    assert horses.counts() == {"train": 271, "val": 48, "test": 0}
    assert nuclei.counts() == {"train": 535, "val": 129, "test": 0}
    assert {sample.class_name for sample in nuclei.samples} == {"stained", "fluorescence", "brightfield"}
    assert horses.warnings == nuclei.warnings == ()
