import json

import numpy as np
import pytest

from segcore.checkpoint.examples import (
    MAX_IMAGES,
    MAX_PIXELS,
    read_curve,
    read_overlays,
)


def _arrays(num=2, side=8):
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (num, side, side, 3), dtype=np.uint8),
        "targets": rng.integers(0, 2, (num, side, side), dtype=np.uint8),
        "probs": rng.random((num, side, side)).astype(np.float16),
        "threshold": np.float64(0.25),
    }


def _save(folder, **changes):
    arrays = _arrays() | changes
    np.savez_compressed(folder / "overlays.npz", **{key: value for key, value in arrays.items() if value is not None})


def test_absent_files_are_no_error(tmp_path):
    assert read_curve(tmp_path) is None
    assert read_overlays(tmp_path) is None


def test_probabilities_are_cut_at_the_threshold(tmp_path):
    probs = np.zeros((2, 8, 8), dtype=np.float16)
    probs[0, 0, 0], probs[0, 0, 1] = 0.25, 0.2
    _save(tmp_path, probs=probs)
    overlays = read_overlays(tmp_path)
    assert overlays.preds.sum() == 1
    assert overlays.preds[0, 0, 0] == 1
    assert overlays.preds.dtype == overlays.targets.dtype == np.uint8


def test_many_and_large_images_are_thinned(tmp_path):
    shape = (MAX_IMAGES + 2, 1024, 1024)
    _save(
        tmp_path,
        images=np.zeros((*shape, 3), np.uint8),
        targets=np.zeros(shape, np.uint8),
        probs=np.zeros(shape, np.float16),
    )
    overlays = read_overlays(tmp_path)
    assert len(overlays.images) == MAX_IMAGES
    assert overlays.images.shape[1] * overlays.images.shape[2] <= MAX_PIXELS
    assert overlays.images.shape[:3] == overlays.targets.shape == overlays.preds.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((2, 8, 8), np.uint8)}, r"images must be \(K, H, W, 3\) uint8"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "images must be"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "images must be"),
        ({"targets": np.zeros((2, 8, 4), np.uint8)}, "targets must be"),
        ({"targets": np.full((2, 8, 8), 255, np.uint8)}, "targets must be 0 or 1"),
        ({"probs": np.full((2, 8, 8), np.nan, np.float16)}, r"probs must lie in \[0, 1\]"),
        ({"probs": np.full((2, 8, 8), 2, np.float16)}, "probs must lie"),
        ({"threshold": np.float64(1.5)}, "threshold must lie"),
        ({"probs": None}, "cannot be read"),
        ({"images": np.array([[None]], dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_wrong_overlays_are_named(tmp_path, changes, message):
    _save(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        read_overlays(tmp_path)


def test_half_written_overlays_are_named(tmp_path):
    _save(tmp_path)
    path = tmp_path / "overlays.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read"):
        read_overlays(tmp_path)


def test_a_curve_becomes_a_row_a_threshold(tmp_path):
    record = {
        "num_images": 3,
        "threshold": [0, 0.5, 1],
        "iou": [0.1, 0.8, 0],
        "dice": [0.2, 0.9, 0],
        "best": {"iou": {}},
    }
    (tmp_path / "curve.json").write_text(json.dumps(record))
    rows = read_curve(tmp_path).rows()
    assert rows[1] == {"curve/threshold": 0.5, "curve/iou": 0.8, "curve/dice": 0.9}
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "Expecting property name"),
        ('{"iou": [1]}', "non-empty list"),
        ('{"threshold": [0, NaN], "iou": [1, 1]}', "finite numbers"),
        ('{"threshold": [0, 1], "iou": [1]}', "no list as long"),
    ],
)
def test_wrong_curves_are_named(tmp_path, text, message):
    (tmp_path / "curve.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_curve(tmp_path)
