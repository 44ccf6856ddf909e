"""Names that do not match letter by letter, and entries of a folder that are no images."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save, write_flat, write_pair
from PIL import Image

from segcore.config import DataConfig
from segcore.data.pairs import listing
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.loose_names import bare, common_ending, match_loosely
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.errors import DataError

SUFFIXES = {".jpg", ".png"}


def found(root: Path, **settings: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """The name of each image's mask file by the name of its file, and the warnings."""
    index = discover(DataConfig(root=str(root), **settings))
    return {sample.image.name: sample.mask.name for sample in index.samples}, index.warnings


def refused(root: Path, **settings: object) -> str:
    """The message of one error with all that is wrong."""
    config = DataConfig(root=str(root), cache_dir=str(root.parent / "cache"), image_size=16, **settings)
    with pytest.raises(DataError, match="cannot be used as it is") as caught:
        build_cache(discover(config), config)
    return str(caught.value)


def test_a_second_suffix_and_upper_case_are_paired_and_doubts_warned_of(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 2)
    write_pair(root / "images/IMG_1.JPG", root / "masks/img_1.png")
    write_pair(root / "images/a.jpg", root / "masks/a.jpg.png")
    write_pair(root / "images/b.jpg", root / "masks/B_MASK.png")
    write_pair(root / "images/c.jfif.jpg", root / "masks/c.png")
    (root / "images/c.jfif.jpg").rename(root / "images/c.jfif")
    names, warnings = found(root)
    assert names == {
        "000.jpg": "000.png", "001.jpg": "001.png", "IMG_1.JPG": "img_1.png", "a.jpg": "a.jpg.png",
        "b.jpg": "B_MASK.png", "c.jfif": "c.png",
    }  # fmt: skip
    assert warnings == (
        "2 masks are paired with an image whose name differs in case or in a second suffix: masks/B_MASK.png with "
        "images/b.jpg, masks/img_1.png with images/IMG_1.JPG",
    )


def test_the_suffix_layout_takes_the_same_names(tmp_path: Path) -> None:
    for image, mask in (("a.jpg", "a_mask.jpg.png"), ("b.jpg", "b.jpg_mask.png"), ("C.JPG", "C_MASK.PNG")):
        write_pair(tmp_path / image, tmp_path / mask)
    assert found(tmp_path)[0] == {"a.jpg": "a_mask.jpg.png", "b.jpg": "b.jpg_mask.png", "C.JPG": "C_MASK.PNG"}


def test_an_exact_name_wins_over_a_loose_one(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "d", ["a", "b"])
    save(root / "images/A.jpg", picture(5))
    assert "1 images without a mask" in refused(root)
    assert "images/A.jpg" in refused(root)


def test_names_that_fit_in_several_ways_are_an_error(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "d", ["a"])
    for name in ("X.jpg", "x.png"):
        save(root / "images" / name, picture(5))
    save(root / "masks/x.jpg.png", disk() * 255)
    message = refused(root)
    assert "1 names of images and masks that fit each other in several ways (rename them, or name the pairs" in message
    assert "images/X.jpg, images/x.png with masks/x.jpg.png" in message


def test_rules_for_loose_names() -> None:
    assert bare("a/x.jpg.png", SUFFIXES) == "a/x"
    assert bare("x.1", SUFFIXES) == "x.1"
    matches = match_loosely(["X", "y", "Y", "z"], ["x_mask.jpg", "y.png", "w"], SUFFIXES, "_mask")
    assert matches.pairs == {"X": "x_mask.jpg"}
    assert matches.doubtful == ((("Y", "y"), ("y.png",)),)
    assert common_ending(["a", "b"], {"a-label": 0, "b-label": 0, "c": 0}) == "-label"
    assert common_ending(["a", "b", "c"], {"a-label": 0}) is None


def test_masks_of_another_ending_are_proposed(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "d", 2)
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}-label.png"))
    (root / "masks/notes.txt").touch()
    message = refused(root)
    assert (
        "; names there end in '-label': --set data.mask_suffix=-label; files there that are not read: 1 .txt)"
        in message
    )
    assert found(root, mask_suffix="-label")[0] == {"000.jpg": "000-label.png", "001.jpg": "001-label.png"}


def test_arrays_are_masks_where_an_image_has_no_other(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "d", 5)
    for name in ("000", "001"):
        (root / f"masks/{name}.png").unlink()
        np.save(root / f"masks/{name}.npy", disk().astype(bool))
    (root / "masks/002.png").unlink()
    np.save(root / "masks/002.jpg.npy", disk())
    np.save(root / "masks/003.npy", np.zeros(3))  # beside a mask
    np.save(root / "masks/statistics.npy", np.zeros(3))
    config = DataConfig(root=str(root), cache_dir=str(tmp_path / "cache"), image_size=(32, 40))
    with open_cache(build_cache(discover(config), config)) as cache:
        for i in range(5):
            np.testing.assert_array_equal(cache.mask(i), disk())
    np.save(root / "masks/000.npy", np.zeros((2, 3, 4)))
    (root / "masks/004.png").unlink()
    message = refused(root)
    assert "files there that are not read: 2 .npy)" in message
    assert "masks/000.npy: an array of 2x3x4 float64; a mask is a 2-D array of bool or integers" in message


def test_arrays_in_the_suffix_layout(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.jpg", picture(1))
        np.save(tmp_path / f"{name}_mask.npy", disk())
    assert found(tmp_path)[0] == {"a.jpg": "a_mask.npy", "b.jpg": "b_mask.npy"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_spellings_of_one_name_pair_loosely_too(tmp_path: Path, form: str) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    root = write_flat(tmp_path, 1)
    image, mask = unicodedata.normalize(form, "Ärger.jpg"), unicodedata.normalize(other, "ärger.jpg.png")
    write_pair(root / "images" / image, root / "masks" / mask)
    assert found(root)[0][image] == mask


def test_everything_odd_in_a_folder_is_listed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_flat(tmp_path / "d", 12)
    images = root / "images"
    (images / "000.jpg").unlink()
    (images / "000.jpg").symlink_to("/nowhere/x.jpg")
    (images / "001.jpg").write_bytes(b"")
    (images / "002.jpg").unlink()
    os.mkfifo(images / "002.jpg")
    (images / "003.jpg").unlink()
    (images / "003.jpg").mkdir()
    (images / "004.jpg").rename(images / os.fsdecode(b"\xff4.jpg"))
    (images / "005.jpg").rename(images / "\x1b[31m5.jpg")
    (images / "locked").mkdir()
    scandir = os.scandir

    def no_permission(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", no_permission)  # the tests may run as root, who may read anything
    message = refused(root)
    for line in (
        "1 files that are not there:\n    images/000.jpg: a link to /nowhere/x.jpg, which does not exist",
        "1 files that are no images:\n    images/001.jpg: the file is empty",
        "1 unreadable files:\n    images/002.jpg: a named pipe, not an image file",
        "1 folders with the name of an image, and no image in them:\n    images/003.jpg",
        "1 names that are not UTF-8 (rename them; convmv does it for whole folders):\n    images/\\xff4.jpg",
        "1 folders that cannot be read:\n    images/locked: Permission denied",
        "1 images without a mask",
        "images/\\x1b[31m5.jpg",
        "3 masks without an image:\n    masks/003.png\n    masks/004.png\n    masks/005.png",
    ):
        assert line in message, message
    message.encode()


def test_a_dangling_link_alone_is_told_with_the_rest(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "d", 6)
    (root / "masks/000.png").unlink()
    (root / "masks/000.png").symlink_to("nowhere.png")
    Image.new("L", (3, 3)).save(root / "masks/001.png")
    message = refused(root)
    assert "masks/000.png: a link to nowhere.png, which does not exist" in message
    assert "1 masks of another size than their image" in message


def test_a_root_whose_name_is_not_text(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"d\xff")
    root.mkdir()
    with pytest.raises(DataError, match=r"data\.root = .*/d\\xff: the name is not UTF-8"):
        discover(DataConfig.model_construct(**{**DataConfig().__dict__, "root": str(root)}))
