import json
from pathlib import Path

import pytest

from segcore.errors import BundleError
from segcore.sealed.card import (
    CARD_FILE,
    WEIGHTS_FILE,
    Origin,
    installed_versions,
    read_card,
    sha256,
    verify_bundle,
    write_card,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A card and its weights; what is in the weights does not matter here."""
    (tmp_path / WEIGHTS_FILE).write_bytes(b"weights")
    put(tmp_path, {"format": 1, "files": {WEIGHTS_FILE: {"sha256": sha256(tmp_path / WEIGHTS_FILE)}}})
    return tmp_path


def put(folder: Path, card: object) -> None:
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")


def test_the_hash_is_that_of_the_content(folder: Path) -> None:
    """Checked with `printf weights | sha256sum`."""
    assert sha256(folder / WEIGHTS_FILE) == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"


def test_a_whole_model_is_verified(folder: Path) -> None:
    assert verify_bundle(folder).format == 1


def test_an_update_adds_and_leaves_the_hashes_valid(folder: Path) -> None:
    before = read_card(folder)
    write_card(folder, before.but(origin=Origin(run="Лошадь", trial=3), color="red"))
    card = verify_bundle(folder)
    assert card.tree() == {**before.tree(), "origin": {"run": "Лошадь", "trial": 3}, "color": "red"}
    assert "Лошадь" in (folder / CARD_FILE).read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_a_folder_without_a_card_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is no sealed model: it has no card\.json"):
        read_card(tmp_path)
    with pytest.raises(BundleError, match=r"is no sealed model: it has no card\.json"):
        read_card(tmp_path / "absent")


@pytest.mark.parametrize("length", [0, 1, 20])
def test_a_cut_off_card_is_told(folder: Path, length: int) -> None:
    text = (folder / CARD_FILE).read_text()
    (folder / CARD_FILE).write_text(text[:length])
    with pytest.raises(BundleError, match=r"card\.json cannot be read"):
        verify_bundle(folder)


@pytest.mark.parametrize(
    ("card", "match"),
    [
        ({"format": 3}, r"was written by a newer segsearch \(format 3; this one reads up to 2\); upgrade segsearch$"),
        ({"format": "1"}, r"format '1' is not one that segsearch writes \(1 to 2\)"),
        ({"format": None}, "format None is not one that segsearch writes"),
        ([1], "should hold a JSON object, found list"),
        ({"origin": {"trial": "x"}}, r"cannot be read: origin\.trial: .*, found 'x'"),
        ({"scores": {"val": {"iou": 0.5, "dice": 0.6}}}, r"cannot be read: scores\.val\.iou_interval: Field required"),
    ],
)
def test_a_card_that_cannot_be_read_says_why(folder: Path, card: object, match: str) -> None:
    put(folder, card)
    with pytest.raises(BundleError, match=rf"card\.json:? {match}") as error:
        read_card(folder)
    assert error.value.exit_code == 2
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("format_", [{}, {"format": 1}, {"format": 2}])
def test_older_cards_are_read_and_what_is_not_known_is_kept(folder: Path, format_: dict[str, int]) -> None:
    tree = {**format_, "origin": {"run": "a", "rack": 7}, "color": "red"}
    put(folder, tree)
    assert read_card(folder).tree() == tree


def test_an_altered_file_is_told(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"Weights")
    with pytest.raises(
        BundleError, match=r"model\.safetensors was altered or is damaged: its sha256 is \w{12}\.\.\., "
    ):
        verify_bundle(folder)


def test_a_missing_file_is_told(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors is missing; the model is incomplete"):
        verify_bundle(folder)


def test_every_listed_file_is_checked(folder: Path) -> None:
    card = read_card(folder).tree()
    card["files"]["model.onnx"] = {"sha256": "0" * 64}
    put(folder, card)
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        verify_bundle(folder)
    (folder / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        verify_bundle(folder)


@pytest.mark.parametrize("files", [None, {}, [], {"other": {"sha256": "0"}}, {WEIGHTS_FILE: {}}, {WEIGHTS_FILE: "0"}])
def test_weights_that_no_hash_vouches_for_are_refused(folder: Path, files: object) -> None:
    put(folder, {"format": 1, "files": files} if files is not None else {"format": 1})
    with pytest.raises(BundleError, match=r"card\.json (has no sha256 of model\.safetensors|cannot be read: files)"):
        verify_bundle(folder)


def test_versions_are_those_installed() -> None:
    versions = installed_versions()
    assert {"torch", "numpy", "timm"} <= set(versions)
    assert all(versions.values())
