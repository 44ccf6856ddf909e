import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from segcore.config import SyntheticConfig, TrainConfig
from segcore.data.synthetic import write_synthetic
from segcore.errors import BundleError
from segcore.models.build import build_model
from segcore.sealed import bundle as bundle_module
from segcore.sealed.bundle import Bundle, load_bundle, write_bundle
from segcore.sealed.card import (
    CARD_FILE,
    WEIGHTS_FILE,
    Card,
    FileEntry,
    SplitScores,
    Threshold,
    read_card,
    sha256,
    verify_bundle,
    write_card,
)

CONFIG = TrainConfig.model_validate({"data": {"image_size": [32, 48]}, "model": {"base_channels": 2, "depth": 2}})
Pairs = list[tuple[str, Path, Path]]


def card(threshold: float) -> Card:
    return Card(threshold=Threshold(value=threshold))


def new_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    model = build_model(CONFIG.model)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(1.5)
    return {name: value.clone().contiguous() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Twelve generated images of many sizes, and one with an empty mask."""
    root = tmp_path_factory.mktemp("images")
    write_synthetic(root, SyntheticConfig(num_images=12), seed=3)
    found = [
        (path.stem, path, Path(str(path).replace("/images/", "/gt/")).with_suffix(".png"))
        for path in sorted(root.rglob("images/*/*.jpg"))
    ]
    empty = root / "empty.png"
    Image.new("L", Image.open(found[0][1]).size, 0).save(empty)
    return [*found, ("empty", found[0][1], empty)]


@pytest.fixture(scope="module")
def threshold(pairs: Pairs) -> float:
    """A threshold at which untrained weights give masks of both kinds of pixels."""
    model = build_model(CONFIG.model)
    model.load_state_dict(new_weights())
    image = np.asarray(Image.open(pairs[0][1]).convert("RGB").resize((48, 32)))
    with torch.inference_mode():
        probs = model.eval()(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).sigmoid()
    return float(probs.median())


@pytest.fixture
def folder(tmp_path: Path, threshold: float) -> Path:
    write_bundle(tmp_path / "best", new_weights(), CONFIG, card(threshold))
    return tmp_path / "best"


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder, torch.device("cpu"))


def rewrite_card(folder: Path, **changes: Any) -> None:
    (folder / CARD_FILE).write_text(json.dumps({**read_card(folder).tree(), **changes}))


def test_what_is_written_is_what_is_loaded(bundle: Bundle, threshold: float) -> None:
    assert bundle.threshold == threshold
    assert bundle.config == CONFIG
    assert not bundle.model.training
    weights = new_weights()
    loaded = bundle.model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_the_folder_holds_weights_and_card_alone_and_the_card_tells_their_hash(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE]
    assert [path.name for path in folder.parent.iterdir()] == ["best"]
    sealed = verify_bundle(folder)
    weights = folder / WEIGHTS_FILE
    assert sealed.files == {WEIGHTS_FILE: FileEntry(sha256=sha256(weights), size=weights.stat().st_size)}
    assert sealed.format == 2
    assert sealed.config["model"]["base_channels"] == 2
    assert {"python", "torch"} <= set(sealed.versions)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_may_be_read_by_whom_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_bundle(tmp_path / "best", new_weights(), CONFIG, card(0.5))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "best").iterdir()}
    assert modes == {CARD_FILE: 0o666 & ~umask, WEIGHTS_FILE: 0o666 & ~umask}


def test_no_path_of_the_machine_is_in_the_card(tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={
            "data": CONFIG.data.model_copy(
                update={"root": "/home/somebody/data/birds", "cache_dir": "/home/somebody/cache"}
            ),
            "model": CONFIG.model.model_copy(
                update={"encoder": "timm:resnet18", "encoder_weights": "/home/somebody/weights/r18.safetensors"}
            ),
        }
    )
    write_bundle(tmp_path / "best", new_weights(), config, card(0.5))
    assert "/home" not in (tmp_path / "best" / CARD_FILE).read_text()
    sealed = TrainConfig.model_validate(read_card(tmp_path / "best").config)
    assert (sealed.data.root, sealed.data.cache_dir) == ("birds", None)
    assert (sealed.model.encoder, sealed.model.encoder_weights) == ("timm:resnet18", "r18.safetensors")
    assert sealed.data.image_hw == config.data.image_hw


@pytest.mark.parametrize(("root", "weights"), [("synthetic", "none"), ("data", "imagenet")])
def test_what_is_no_absolute_path_stays_in_the_card(tmp_path: Path, root: str, weights: str) -> None:
    data = CONFIG.data.model_copy(update={"root": root})
    model = CONFIG.model.model_copy(update={"encoder": "timm:resnet18", "encoder_weights": weights})
    config = CONFIG.model_copy(update={"data": data, "model": model})
    write_bundle(tmp_path / "best", new_weights(), config, card(0.5))
    assert TrainConfig.model_validate(read_card(tmp_path / "best").config) == config


def test_the_weights_carry_the_normalisation(folder: Path) -> None:
    assert {"mean", "std"} <= load_file(folder / WEIGHTS_FILE).keys()


def test_one_altered_byte_of_the_weights_is_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors was altered or is damaged"):
        load_bundle(folder)


def test_missing_weights_are_told(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors is missing; the model is incomplete"):
        load_bundle(folder)


def test_no_card_no_model(folder: Path) -> None:
    (folder / CARD_FILE).unlink()
    with pytest.raises(BundleError, match="is no sealed model"):
        load_bundle(folder)


def test_a_cut_off_card_is_told(folder: Path) -> None:
    text = (folder / CARD_FILE).read_text()
    (folder / CARD_FILE).write_text(text[: len(text) // 2])
    with pytest.raises(BundleError, match=r"card\.json cannot be read"):
        load_bundle(folder)


def test_an_unknown_format_is_told(folder: Path) -> None:
    rewrite_card(folder, format=99)
    newer = r"card\.json was written by a newer segsearch \(format 99; this one reads up to 2\); upgrade segsearch"
    with pytest.raises(BundleError, match=newer):
        load_bundle(folder)


def test_a_card_of_format_1_is_read(folder: Path, threshold: float) -> None:
    """It held the machine's own paths, which nothing reads."""
    config = card_config()
    config["data"] |= {"root": "/home/somebody/birds", "cache_dir": "/home/somebody/cache"}
    rewrite_card(folder, format=1, config=config)
    assert load_bundle(folder).threshold == threshold


def card_config(**model: Any) -> dict[str, Any]:
    return {**CONFIG.model_dump(mode="json"), "model": {**CONFIG.model.model_dump(mode="json"), **model}}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"config": card_config(base_channels=4)}, "size mismatch"),
        ({"config": card_config(arch="attention_unet")}, "Missing key"),
        ({"config": card_config(arch="transformer")}, "arch"),
        ({"config": card_config(decoder_channels=[8])}, r"decoder_channels: 2 widths are needed"),
        pytest.param(
            {"config": card_config(encoder="timm:no_such_encoder")}, "no_such_encoder", marks=pytest.mark.slow
        ),
        ({"config": {"unknown": 1}}, "unknown"),
        ({"config": None}, r"config: .* valid dictionary"),
        ({"threshold": {}}, r"threshold\.value: Field required"),
        ({"threshold": None}, "it has no threshold"),
        ({"threshold": {"value": "half"}}, "half"),
        ({"threshold": {"value": 1.5}}, r"threshold\.value: must lie in \[0, 1\], found 1\.5"),
        ({"threshold": {"value": float("nan")}}, "found nan"),
    ],
)
def test_a_card_that_does_not_describe_the_weights_is_told(folder: Path, changes: dict[str, Any], match: str) -> None:
    rewrite_card(folder, **changes)
    with pytest.raises(
        BundleError, match=rf"(?s)(best: the card does not describe the weights|card\.json cannot be read): .*{match}"
    ):
        load_bundle(folder)


def test_weights_of_no_known_form_are_told(folder: Path) -> None:
    """The hash is right, the content is not."""
    (folder / WEIGHTS_FILE).write_bytes(b"no tensors")
    rewrite_card(folder, files={WEIGHTS_FILE: {"sha256": sha256(folder / WEIGHTS_FILE)}})
    with pytest.raises(BundleError, match="the card does not describe the weights"):
        load_bundle(folder)


def test_an_updated_card_still_vouches_for_the_weights(folder: Path) -> None:
    scores = {"val": SplitScores(iou=0.9, dice=0.95, iou_interval=(0.8, 0.95), num_images=12)}
    write_card(folder, read_card(folder).but(scores=scores))
    assert load_bundle(folder).card.scores == scores


def test_probabilities_are_those_of_the_model(bundle: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    probs = bundle.predict_probs(image)
    assert probs.shape == (32, 48)
    assert probs.dtype == np.float32
    with torch.inference_mode():
        expected = bundle.model(torch.from_numpy(image).permute(2, 0, 1)[None]).sigmoid()[0, 0].numpy()
    assert np.array_equal(probs, expected)


def test_a_view_that_is_not_contiguous_gives_the_same(bundle: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 96, 3), dtype=np.uint8)[:, ::-2]
    assert np.array_equal(bundle.predict_probs(image), bundle.predict_probs(image.copy()))


def test_a_mask_has_the_size_of_the_file_or_of_the_model(bundle: Bundle, pairs: Pairs) -> None:
    for _, path, _ in pairs[:3]:
        width, height = Image.open(path).size
        own, model = bundle.predict_file(path), bundle.predict_file(path, original_size=False)
        assert own.shape == (height, width)
        assert model.shape == (32, 48)
        for mask in (own, model):
            assert mask.dtype == np.uint8
            assert set(np.unique(mask)) == {0, 255}


def test_a_mask_follows_a_photo_that_is_stored_turned(bundle: Bundle, tmp_path: Path) -> None:
    """EXIF orientation 6: shown turned by 90 degrees, so the mask is as wide as the photo looks."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), (200, 30, 90)).save(tmp_path / "turned.jpg", exif=exif)
    assert bundle.predict_file(tmp_path / "turned.jpg").shape == (60, 40)


def test_a_new_bundle_replaces_the_old_one_whole(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"of the old one")
    write_bundle(folder, new_weights(1), CONFIG, card(0.5))
    loaded = load_bundle(folder)
    assert loaded.threshold == 0.5
    assert torch.equal(
        loaded.model.state_dict()["segmentation_head.weight"], new_weights(1)["segmentation_head.weight"]
    )
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE]
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


@pytest.mark.parametrize("step", ["save_tensors", "sha256", "installed_versions"])
def test_a_failure_while_writing_leaves_the_old_one(
    folder: Path, threshold: float, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full_disk(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module, step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(folder, new_weights(1), CONFIG, card(0.5))
    assert load_bundle(folder).threshold == threshold
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


@pytest.mark.parametrize("failing_rename", [1, 2])
def test_a_failure_of_either_rename_leaves_the_old_one(
    folder: Path, threshold: float, monkeypatch: pytest.MonkeyPatch, failing_rename: int
) -> None:
    real, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == failing_rename:
            raise KeyboardInterrupt("stopped")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        write_bundle(folder, new_weights(1), CONFIG, card(0.5))
    assert load_bundle(folder).threshold == threshold
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


def test_a_model_that_a_killed_process_left_renamed_away_comes_back(
    folder: Path, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the renames; the next attempt to seal fails as well, and still the old model is there."""
    os.replace(folder, folder.with_name(".best.999.old"))
    folder.with_name(".best.999.tmp").mkdir()

    def full_disk(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module, "save_tensors", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(folder, new_weights(1), CONFIG, card(0.5))
    assert load_bundle(folder).threshold == threshold
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


def test_a_leftover_beside_a_whole_model_is_removed_and_not_taken(folder: Path) -> None:
    write_bundle(folder.with_name(".best.999.old"), new_weights(1), CONFIG, card(0.1))
    write_bundle(folder, new_weights(2), CONFIG, card(0.2))
    assert load_bundle(folder).threshold == 0.2
    assert [path.name for path in folder.parent.iterdir()] == ["best"]
