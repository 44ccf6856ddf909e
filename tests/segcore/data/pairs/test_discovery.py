"""Bad data folders: each ends in one error that names the file and the rule."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save, write_flat, write_pair, write_split
from PIL import Image

from segcore.config import DataConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache, cache_folder
from segcore.data.pixels.cache_file import open_cache
from segcore.errors import DataError


def check(root: Path | str, cache_dir: Path, **settings: object) -> Path:
    """What `segsearch check` does with the data."""
    config = DataConfig(root=str(root), cache_dir=str(cache_dir), image_size=16, **settings)
    return build_cache(discover(config), config)


def lost_mask(root: Path) -> None:
    (root / "masks/002.png").unlink()


def lost_images(root: Path) -> None:
    for i in (1, 3, 4, 5):
        (root / f"images/00{i}.jpg").unlink()


def cut_image(root: Path) -> None:
    path = root / "images/003.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def empty_file(root: Path) -> None:
    (root / "masks/001.png").write_bytes(b"")


def text_as_image(root: Path) -> None:
    (root / "images/004.jpg").write_text("<html>404</html>")


def other_size(root: Path) -> None:
    save(root / "masks/000.png", disk((16, 20)) * 255)


def turned_camera_image(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(root / "images/000.jpg", exif=exif)


def photo_as_mask(root: Path) -> None:
    shutil.copy(root / "images/005.jpg", root / "masks/005.png")


def two_extensions(root: Path) -> None:
    save(root / "images/001.png", picture(1))


def two_masks(root: Path) -> None:
    save(root / "masks/001.bmp", disk() * 255)


def val_without_masks(root: Path) -> None:
    shutil.rmtree(root)
    write_split(root, {"train": 2, "val": 1})
    shutil.rmtree(root / "val/gt")


def two_validation_folders(root: Path) -> None:
    shutil.rmtree(root)
    write_split(root, {"train": 2, "val": 1, "validation": 1})


def only_validation(root: Path) -> None:
    shutil.rmtree(root)
    write_split(root, {"val": 2})


def one_image(root: Path) -> None:
    shutil.rmtree(root)
    write_flat(root, 1)


def no_images(root: Path) -> None:
    shutil.rmtree(root / "images")
    shutil.rmtree(root / "masks")
    (root / "readme.txt").write_text("soon")


def empty_image_folders(root: Path) -> None:
    shutil.rmtree(root)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()


def swapped(root: Path) -> None:
    (root / "images").rename(root / "x")
    (root / "masks").rename(root / "images")
    (root / "x").rename(root / "masks")


BAD_FOLDERS: list[tuple[Callable[[Path], None], list[str]]] = [
    (lost_mask, [r"1 images without a mask \(expected of the same name under .*/masks\):\n +images/002\.jpg"]),
    (lost_images, [r"4 masks without an image:\n +masks/001\.png\n +masks/003\.png\n +masks/004\.png\n +and 1 more"]),
    (cut_image, [r"1 unreadable files:\n +images/003\.jpg: .*truncated"]),
    (empty_file, [r"1 files that are no images:\n +masks/001\.png: the file is empty"]),
    (text_as_image, [r"1 files that are no images:\n +images/004\.jpg: not an image file"]),
    (other_size, [r"1 masks of another size than their image:\n +masks/000\.png is 20x16, images/000\.jpg is 40x32"]),
    (
        turned_camera_image,
        [
            r"1 masks are not turned as their image is: its EXIF orientation was applied",
            r"exiftool -Orientation= FILES",
            r"masks/000\.png is 40x32; images/000\.jpg has orientation 6: 40x32 stored, 32x40 upright",
        ],
    ),
    (photo_as_mask, [r"1 masks that are not masks:\n +masks/005\.png: \d+% of its pixels are between dark and bright"]),
    (two_extensions, [r"1 images of the same name and different suffix:\n +images/001\.jpg and images/001\.png"]),
    (two_masks, [r"1 masks of the same name and different suffix:\n +masks/001\.bmp and masks/001\.png"]),
    (val_without_masks, [r"1 split folders that hold images but not `images` and `gt`.*:\n +/.*/val"]),
    (two_validation_folders, [r"1 split folders for 'val' beside another one:\n +/.*/validation"]),
    (only_validation, [r"there are no training images, only {'val': 4}; add a `train` split"]),
    (one_image, [r"cannot carve a val split from 1 training image; at least 2 are needed"]),
    (no_images, [r"no images with masks found", r"holds readme\.txt \(files: 1 \.txt\)", r"data\.root = "]),
    (empty_image_folders, [r"no images with masks found", r"it holds images/, masks/ \(files: none\)"]),
    (swapped, [r"6 masks that are not masks:\n +masks/000\.jpg"]),
]


@pytest.mark.parametrize(("spoil", "messages"), BAD_FOLDERS, ids=[spoil.__name__ for spoil, _ in BAD_FOLDERS])
def test_a_bad_folder_is_one_clear_error(tmp_path: Path, spoil: Callable[[Path], None], messages: list[str]) -> None:
    root = write_flat(tmp_path / "data", 6)
    check(root, tmp_path / "cache")
    spoil(root)
    with pytest.raises(DataError, match=messages[0]) as caught:
        check(root, tmp_path / "cache")
    for message in messages:
        assert caught.match(message)
    assert str(root) in str(caught.value) or "carve" in messages[0] or "no training" in messages[0]
    assert caught.value.exit_code == 2
    assert not list((tmp_path / "cache").glob(".*.tmp"))


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "data", 12)
    for spoil in (lost_mask, cut_image, other_size, photo_as_mask, two_extensions):
        spoil(root)
    with pytest.raises(DataError, match="cannot be used as it is") as caught:
        discover(DataConfig(root=str(root)))
    for kind in (
        "1 images without a mask",
        "1 unreadable files",
        "1 masks of another size",
        "1 masks that are not masks",
        "1 images of the same name",
    ):
        assert kind in str(caught.value)


def test_oddities_warn_and_do_not_stop(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "data", 10)
    save(root / "masks/000.png", np.zeros((32, 40), np.uint8))
    save(root / "masks/001.png", np.full((32, 40), 255, np.uint8))
    Image.fromarray(disk() * 255).save(root / "masks/002.png.jpg", quality=70)
    (root / "masks/002.png").unlink()
    (root / "masks/002.png.jpg").rename(root / "masks/002.jpg")
    (root / "images/003.jpg").unlink()
    save(root / "images/003.png", picture(3)[..., 0].astype(np.uint16) * 15)
    with open_cache(check(root, tmp_path / "cache")) as cache:
        found = "\n".join(cache.warnings)
    assert "1 masks are empty (no foreground): masks/000.png" in found
    assert "1 masks are all foreground: masks/001.png" in found
    assert "1 masks hold grey values between background and foreground, cut at half: masks/002.jpg" in found
    assert "1 images are almost black" in found
    assert len(cache.warnings) == 4


def test_a_root_that_is_not_there_says_where_it_looked_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no images with masks found at data\.root = 'data'") as caught:
        discover(DataConfig())
    message = str(caught.value)
    assert f"looked in: {tmp_path / 'data'}; the folder does not exist" in message
    for layout in ("split_folders: train/images", "flat: images/", "suffix: x.jpg + x_mask.png", "csv: one .csv"):
        assert f"looked for layout {layout}" in message
    assert "--set" not in message, "how to point elsewhere depends on the command"
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        discover(DataConfig())


def test_a_layout_that_does_not_fit_is_named(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "data", 3)
    with pytest.raises(DataError, match=r"(?s)looked for layout split_folders: .*") as caught:
        discover(DataConfig(root=str(root), layout="split_folders"))
    assert "layout flat" not in str(caught.value)
    with pytest.raises(DataError, match=r"data\.layout is 'csv', but .* holds 0 CSV files \(none\)"):
        discover(DataConfig(root=str(root), layout="csv"))
    (root / "x.csv").write_text("image,mask\n")
    with pytest.raises(DataError, match=r"data\.layout is 'flat', which needs a folder, but data\.root is the file"):
        discover(DataConfig(root=str(root / "x.csv"), layout="flat"))
    with pytest.raises(DataError, match=r"000\.jpg; it must be a folder or a \.csv of pairs"):
        discover(DataConfig(root=str(root / "images/000.jpg")))


def test_a_set_to_score_on_is_taken_as_it_lies(tmp_path: Path) -> None:
    flat = discover(DataConfig(root=str(write_flat(tmp_path / "flat", 3))), carve=False)
    assert flat.counts() == {"train": 0, "val": 0, "test": 3}
    only_val = discover(DataConfig(root=str(write_split(tmp_path / "v", {"val": 1}))), carve=False)
    assert only_val.counts() == {"train": 0, "val": 2, "test": 0}


def test_group_by_sees_the_path_below_the_root(tmp_path: Path) -> None:
    for clip in "abcd":
        for frame in range(3):
            name = f"clip_{clip}/{frame}"
            write_pair(tmp_path / f"images/{name}.jpg", tmp_path / f"masks/{name}.png")
    index = discover(DataConfig(root=str(tmp_path), group_by=r"images/(clip_\w)/", val_fraction=0.25))
    assert {sample.group for sample in index.samples} == {f"clip_{clip}" for clip in "abcd"}
    assert len({sample.group for sample in index.split("val")}) == 1


def test_groups_leaking_between_given_splits_warn(tmp_path: Path) -> None:
    root = write_split(tmp_path, {"train": 2, "val": 1})
    index = discover(DataConfig(root=str(root), group_by=r"/(\d+)\.jpg"))
    assert len(index.warnings) == 1
    assert "groups of data.group_by lie in more than one split" in index.warnings[0]


def test_a_home_relative_root_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_flat(tmp_path / "pics", 3)
    assert discover(DataConfig(root="~/pics")).root == str(tmp_path / "pics")
    assert cache_folder(DataConfig(cache_dir="~/c")) == tmp_path / "c"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(DataConfig()).name == "segsearch"
