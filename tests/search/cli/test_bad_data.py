"""Data that cannot be used is one message, and no run is made."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result
from command_results import SPACE, refused
from noise_pairs import good_pairs, image, mask
from PIL import Image

from segcore.config import DataConfig


def nothing_there(root: Path) -> None:
    pass


def empty_folder(root: Path) -> None:
    root.mkdir()


def only_text(root: Path) -> None:
    root.mkdir()
    (root / "readme.txt").write_text("no images")


def missing_mask(root: Path) -> None:
    good_pairs(root)
    (root / "masks" / "3.png").unlink()


def missing_image(root: Path) -> None:
    good_pairs(root)
    (root / "images" / "4.png").unlink()


def truncated_image(root: Path) -> None:
    good_pairs(root)
    path = root / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:200])


def not_an_image(root: Path) -> None:
    good_pairs(root)
    (root / "images" / "5.png").write_text("hello")


def sizes_differ(root: Path) -> None:
    good_pairs(root)
    mask(root / "masks" / "6.png", (20, 20))


def mask_is_a_photo(root: Path) -> None:
    good_pairs(root)
    image(root / "masks" / "7.png")


def two_images_one_name(root: Path) -> None:
    good_pairs(root)
    Image.open(root / "images" / "8.png").save(root / "images" / "8.jpg")


def csv_names_a_missing_file(root: Path) -> None:
    good_pairs(root)
    rows = "\n".join(f"images/{n}.png,masks/{n}.png" for n in (0, 1, 2, 99))
    (root / "pairs.csv").write_text("image,mask\n" + rows + "\n")
    (root / "images").rename(root / "pictures")


def one_pair_only(root: Path) -> None:
    good_pairs(root, 1)


BAD_DATA: list[tuple[Callable[[Path], None], str]] = [
    (nothing_there, "does not exist"),
    (empty_folder, "data.root"),
    (only_text, "data.root"),
    (missing_mask, "3.png"),
    (missing_image, "4.png"),
    (truncated_image, "2.png"),
    (not_an_image, "5.png"),
    (sizes_differ, "6.png"),
    (mask_is_a_photo, "7.png"),
    (two_images_one_name, "8.jpg"),
    (csv_names_a_missing_file, "99.png"),
    (one_pair_only, "at least 2 are needed"),
]


@pytest.mark.parametrize(("build", "fragment"), BAD_DATA, ids=[case[0].__name__ for case in BAD_DATA])
def test_a_bad_data_folder_is_one_message_and_leaves_no_run(
    cli: Callable[..., Result], tmp_path: Path, build: Callable[[Path], None], fragment: str
) -> None:
    build(tmp_path / "d")
    (tmp_path / "c.yaml").write_text("data: {root: d, image_size: 32}\n" + SPACE)
    for command in ("check", "run"):
        refused(cli(command, "c.yaml"), fragment)
    assert not (tmp_path / "results").exists()


def test_a_name_that_is_no_text_is_told_on_any_terminal(cli: Callable[..., Result]) -> None:
    refused(cli("check", os.fsdecode(b"no\xff.yaml")), "no\\udcff.yaml: there is no such config file")


def test_a_folder_without_data_is_answered_in_the_words_of_the_command(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text("data: {root: d, image_size: 32}\n" + SPACE)
    refused(cli("check", "c.yaml"), "no images with masks found", "--set data.root=FOLDER", "--set data.root=synthetic")
    bundle = SimpleNamespace(config=SimpleNamespace(data=DataConfig()))
    monkeypatch.setattr("search.stages.predicting.load_model", lambda *_: bundle)
    evaluated = cli("evaluate", "model", "d")
    refused(evaluated, "no images with masks found")
    assert "--set" not in evaluated.output
