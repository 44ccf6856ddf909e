import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from report_runs import run_with, subject, write_overlays

from search.report.sections.overlays import Examples, Shown, examples_in, overlays, pictures, render


def test_the_worst_and_the_best_are_shown_with_their_iou(tmp_path: Path) -> None:
    """Image k has 8 pixels of mask, of which the prediction finds k + 1, and nothing else."""
    targets = np.zeros((6, 4, 4), dtype=np.uint8)
    targets[:, :2] = 1
    probs = np.zeros((6, 4, 4), dtype=np.float32)
    for image in range(6):
        probs[image].reshape(-1)[: image + 1] = 0.4
    write_overlays(tmp_path, targets, probs, threshold=0.3)
    shown = [Shown(index, (index + 1) / 8) for index in (0, 1, 4, 5)]
    assert examples_in([tmp_path / "gone", tmp_path]) == Examples(6, shown)
    assert overlays(run_with(checkpoints=[tmp_path])) == Examples(6, shown)


def test_an_empty_mask_found_empty_is_right_and_few_images_are_all_shown(tmp_path: Path) -> None:
    empty = np.zeros((2, 4, 4), dtype=np.uint8)
    write_overlays(tmp_path, empty, empty.astype(np.float32))
    assert examples_in([tmp_path]) == Examples(2, [Shown(0, 1.0), Shown(1, 1.0)])


def test_found_missed_and_wrong_pixels_have_their_colours(tmp_path: Path) -> None:
    targets = np.array([[[1, 1], [0, 0]]], dtype=np.uint8)
    probs = np.array([[[0.9, 0.1], [0.9, 0.1]]], dtype=np.float32)
    write_overlays(tmp_path, targets, probs)
    _, with_mask, with_pred = (_pixels(source) for source in pictures([tmp_path], [0])[0])
    # 0.45 * 100 + 0.55 * colour, rounded.
    found, missed, wrong, nothing = [70, 133, 82], [62, 110, 164], [166, 72, 71], [100, 100, 100]
    assert with_pred.tolist() == [[found, missed], [wrong, nothing]]
    assert with_mask.tolist() == [[found, found], [nothing, nothing]]


def test_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "overlays.npz").write_bytes(b"PK cut off")
    assert examples_in([tmp_path]) is None
    assert pictures([tmp_path], [0]) == {}
    assert render(Examples(1, [Shown(0, 1.0)]), subject(checkpoints=[tmp_path])) == ""


def _pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))))
