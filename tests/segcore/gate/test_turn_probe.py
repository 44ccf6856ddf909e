"""Masks that were not turned like their image, where only the pixels show it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data_folders import save
from PIL import Image

from segcore.config import DataConfig
from segcore.data.loader import BatchDataset
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.gate.data_probes import probe_pairing
from segcore.gate.evidence import Evidence
from segcore.gate.report import Finding
from segcore.gate.turn_probe import upright

ORIENTATIONS = range(1, 9)
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""By orientation, the one that undoes it."""


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if pixels.ndim == 2:
        return upright(pixels, orientation)
    return np.stack([upright(pixels[..., c], orientation) for c in range(3)], axis=-1)


def write_set(root: Path, tags: dict[int, int], unturned: set[int], num: int = 40) -> Path:
    """Square pictures of a bright blob; some carry a tag, and some of those a mask of the stored pixels."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :48]
    for i in range(num):
        centre = rng.uniform((10, 10), (20, 38))
        mask = ((rows - centre[0]) ** 2 + ((columns - centre[1]) / 1.6) ** 2 < rng.uniform(5, 9) ** 2).astype(np.uint8)
        image = (rng.normal(90, 20, (48, 48, 3)) + 90 * mask[..., None]).clip(0, 255).astype(np.uint8)
        orientation = tags.get(i, 1)
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = root / "images" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(turned(image, BACK[orientation])).save(path, exif=exif)
        stored = turned(mask, BACK[orientation]) if i in unturned else mask
        save(root / "masks" / path.name, np.ascontiguousarray(stored) * 255)
    return root


def findings(root: Path, tmp_path: Path) -> list[Finding]:
    config = DataConfig(root=str(root), cache_dir=str(tmp_path / "cache"), image_size=48)
    with open_cache(build_cache(discover(config), config)) as cache:
        dataset = BatchDataset(cache, None, 0)
        read = lambda indices: dataset[0, tuple(indices)]  # noqa: E731
        pipeline = SimpleNamespace(cache=SimpleNamespace(source=cache), read=read)  # what these probes look at
        return list(probe_pairing(Evidence(pipeline, 0.0)))  # type: ignore[arg-type]


def test_an_orientation_is_undone_by_the_stored_pixels() -> None:
    stored = np.arange(6, dtype=np.float32).reshape(2, 3)
    for orientation, expected in {
        1: [[0, 1, 2], [3, 4, 5]], 2: [[2, 1, 0], [5, 4, 3]], 3: [[5, 4, 3], [2, 1, 0]], 4: [[3, 4, 5], [0, 1, 2]],
        5: [[0, 3], [1, 4], [2, 5]], 6: [[3, 0], [4, 1], [5, 2]], 7: [[5, 2], [4, 1], [3, 0]],
        8: [[2, 5], [1, 4], [0, 3]],
    }.items():  # fmt: skip
        assert upright(stored, orientation).tolist() == expected
        np.testing.assert_array_equal(upright(upright(stored, orientation), BACK[orientation]), stored)


@pytest.mark.parametrize("orientation", [3, 6])
def test_five_unturned_masks_among_many_are_an_error(tmp_path: Path, orientation: int) -> None:
    few = dict.fromkeys((1, 9, 17, 25, 33), orientation)
    [finding] = findings(write_set(tmp_path / "d", few, set(few)), tmp_path)
    assert (finding.code, finding.severity) == ("unturned_masks", "error")
    assert finding.evidence["fit better"] == finding.evidence["images with an orientation"] == 5
    assert "and 2 more" in str(finding.evidence["such as"])
    assert "exiftool -Orientation= FILES" in finding.advice


def test_some_unturned_masks_of_many_are_a_warning(tmp_path: Path) -> None:
    tags = dict.fromkeys(range(12), 6)
    [finding] = findings(write_set(tmp_path / "d", tags, {0, 1, 2, 3}, num=60), tmp_path)
    assert (finding.code, finding.severity) == ("unturned_masks", "warning")
    assert finding.evidence["fit better"] == 4


def test_a_set_whose_masks_were_all_left_unturned_is_one_error(tmp_path: Path) -> None:
    tags = dict.fromkeys(range(24), 3)
    [finding] = findings(write_set(tmp_path / "d", tags, set(tags), num=24), tmp_path)
    assert (finding.code, finding.severity) == ("unturned_masks", "error")


def test_upright_masks_of_turned_images_are_fine(tmp_path: Path) -> None:
    tags = {i: ORIENTATIONS[i % 8] for i in range(40)}
    assert findings(write_set(tmp_path / "d", tags, set()), tmp_path) == []
    assert findings(write_set(tmp_path / "e", dict.fromkeys(range(24), 6), set(), num=24), tmp_path) == []
