"""Masks written in many ways, read back: the reading is the truth, or it is refused, and never anything else."""

import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from segcore.data.masks.planes import ByteArray
from segcore.data.masks.rule import ForegroundValue, MaskRule
from segcore.data.pixels.decode import decode_mask
from segcore.data.pixels.surveying import decide_rule, require_rule
from segcore.errors import DataError

Mask = npt.NDArray[np.bool_]
Write = Callable[[Path, Mask, int], None]


def shapes(side: int, seed: int) -> Mask:
    """A disk, a rectangle, a bar of three pixels and a line of one, somewhere; every sixth mask is empty."""
    image = Image.new("1", (side + side // 4, side))
    if seed % 6 != 5:
        rng, draw = np.random.default_rng(seed), ImageDraw.Draw(image)
        x, y = rng.uniform(0.1, 0.6, 2) * side
        draw.ellipse([x, y, x + side * 0.3, y + side * 0.25], fill=1)
        if seed % 3 == 0:
            draw.rectangle([side * 0.7, side * 0.6, side * 0.95, side * 0.9], fill=1)
        for width in (1, 3):
            draw.line([tuple(point) for point in rng.uniform(0, side, (3, 2))], fill=1, width=width)
    return np.asarray(image)


def edge(mask: Mask) -> Mask:
    """The pixels of a mask that touch its outside."""
    inside = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
    return mask & ~inside


def band(mask: Mask) -> Mask:
    """A bar of the upper rows, whatever is in it."""
    rows = np.zeros_like(mask)
    rows[: mask.shape[0] // 6] = True
    return rows


def blurred(mask: Mask) -> ByteArray:
    """0 to 255 with edges as a scaled mask has them: each pixel is its own share of foreground, one pixel wide."""
    big = Image.fromarray(mask.astype(np.uint8) * 255).resize((mask.shape[1] * 4, mask.shape[0] * 4), 0)
    return np.asarray(big.rotate(1, Image.Resampling.BILINEAR).resize(mask.shape[::-1], Image.Resampling.BOX))


def probabilities(mask: Mask, seed: int) -> npt.NDArray[np.float64]:
    """Confident values with noise in both parts; a mask without foreground never exceeds 0.04."""
    noise = np.random.default_rng(seed).uniform(0, 0.04, mask.shape)
    return np.where(mask, 0.95 - 3 * noise, noise)


def grey(value: float, dtype: type = np.uint8, suffix: str = "png") -> Write:
    return lambda stem, mask, _: save(stem, np.where(mask, value, 0).astype(dtype), suffix)


def save(stem: Path, array: np.ndarray, suffix: str = "png", **options: object) -> None:
    Image.fromarray(array).save(f"{stem}.{suffix}", **options)


def lossy(suffix: str, channels: int = 1, value: int = 255, **options: object) -> Write:
    def write(stem: Path, mask: Mask, _: int) -> None:
        array = (mask * value).astype(np.uint8)
        save(stem, array if channels == 1 else np.repeat(array[..., None], 3, axis=2), suffix, **options)

    return write


def through(kind: str, suffix: str, channels: int = 1, **options: object) -> Write:
    """Saved lossily first, then without loss."""

    def write(stem: Path, mask: Mask, _: int) -> None:
        array = (mask * 255).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(array if channels == 1 else np.repeat(array[..., None], 3, axis=2)).save(
            buffer, kind, **options
        )
        with Image.open(buffer) as image:
            image.save(f"{stem}.{suffix}")

    return write


def rgb(on: Sequence[int], off: Sequence[int] = (0, 0, 0), suffix: str = "png") -> Write:
    return lambda stem, mask, _: save(stem, np.where(mask[..., None], on, off).astype(np.uint8), suffix)


def palette(colours: Sequence[int], void: bool = False) -> Write:
    def write(stem: Path, mask: Mask, _: int) -> None:
        indices = mask.astype(np.uint8)
        if void:
            indices[edge(mask)] = 255
        image = Image.fromarray(indices, mode="P")
        image.putpalette([*colours, *[0] * (765 - len(colours)), 224, 224, 192] if void else list(colours))
        image.save(f"{stem}.png")

    return write


def rgba(colour: ByteArray | Sequence[int], alpha: ByteArray) -> ByteArray:
    return np.dstack([np.broadcast_to(np.asarray(colour, np.uint8), (*alpha.shape, 3)), alpha]).astype(np.uint8)


def either(*writers: Write) -> Write:
    """Each file in one of these ways, in turn."""
    return lambda stem, mask, i: writers[i % len(writers)](stem, mask, i)


CERTAIN: dict[str, Write] = {
    "0/255": grey(255),
    "0/1": grey(1),
    "0/38": grey(38),
    "16 bits, 0/65535": grey(65535, np.uint16),
    "16 bits, 0/255": grey(255, np.uint16),
    "32 bits, 0/1": grey(1, np.int32, "tif"),
    "float, 0/1": grey(1, np.float32, "tif"),
    "single bits": lambda stem, mask, _: save(stem, mask),
    "single bits beside 0/255": either(lambda stem, mask, _: save(stem, mask), grey(255)),
    "0/1 beside 0/255": either(grey(1), grey(255)),
    "red on black": rgb((255, 0, 0)),
    "white on black, in colours": rgb((255, 255, 255)),
    "soft edges": lambda stem, mask, _: save(stem, blurred(mask)),
    "soft red": lambda stem, mask, _: save(stem, np.dstack([blurred(mask), mask * 0, mask * 0]).astype(np.uint8)),
    "soft edges beside 0/255": either(grey(255), lambda stem, mask, _: save(stem, blurred(mask))),
    "ink on transparent": lambda stem, mask, _: save(stem, rgba((0, 0, 0), mask * np.uint8(255))),
    "white ink on transparent": lambda stem, mask, _: save(stem, rgba((255, 255, 255), mask * np.uint8(200))),
    "opaque": lambda stem, mask, _: save(stem, rgba(mask[..., None] * np.array([255] * 3), np.full(mask.shape, 255))),
    "float probabilities": lambda stem, mask, i: save(stem, probabilities(mask, i).astype(np.float32), "tif"),
    "8-bit probabilities": lambda stem, mask, i: save(stem, np.uint8(probabilities(mask, i) * 255)),
    "16-bit probabilities": lambda stem, mask, i: save(stem, np.uint16(probabilities(mask, i) * 65535)),
    "palette with black": palette([0, 0, 0, 128, 0, 0]),
    "palette without black": palette([90, 10, 10, 10, 90, 10]),
    "palette with white first": palette([255, 255, 255, 255, 0, 0]),
    "gif": grey(255, suffix="gif"),
    "webp without loss": lossy("webp", channels=3, lossless=True),
    "webp without loss, 0/1": lossy("webp", channels=3, value=1, lossless=True),
    "webp, q80": lossy("webp", quality=80),
    "webp, q40": lossy("webp", channels=3, quality=40),
    "jpeg, q50": lossy("jpg", quality=50),
    "jpeg, colours, q50": lossy("jpg", channels=3, quality=50),
    "jpeg, 0/200": lossy("jpg", value=200, quality=60),
    "avif": lossy("avif", quality=60),
    "jpeg 2000": lossy("jp2", quality_mode="rates", quality_layers=[6]),
    "png of a jpeg, q50": through("jpeg", "png", quality=50),
    "png of a jpeg, q80": through("jpeg", "png", quality=80),
    "png of a jpeg, q95": through("jpeg", "png", quality=95),
    "png of a jpeg, colours": through("jpeg", "png", channels=3, quality=75),
    "tiff of a jpeg, q30": through("jpeg", "tif", quality=30),
    "png of a webp": through("webp", "png", quality=80),
    "jpeg beside png": either(grey(255), lossy("jpg", quality=50)),
}


def valid_area(stem: Path, mask: Mask, _: int) -> None:
    alpha = np.where(band(mask), 0, 255)
    save(stem, rgba(mask[..., None] * np.array([255] * 3), alpha))


LOSSY = [name for name in CERTAIN if any(word in name for word in ("jpeg", "webp", "avif"))]


@pytest.mark.parametrize(("name", "side"), [*((name, 48) for name in CERTAIN), *((name, 150) for name in LOSSY)])
def test_a_mask_reads_as_what_was_written(tmp_path: Path, name: str, side: int) -> None:
    truths = [shapes(side, seed) for seed in range(6)]
    if name.startswith("soft"):
        truths = [blurred(mask) >= 127.5 if "beside" not in name or i % 2 else mask for i, mask in enumerate(truths)]
    readings, warnings = read_all(tmp_path, CERTAIN[name], [shapes(side, seed) for seed in range(6)])
    least = 0.99 if name in LOSSY else 1.0
    for truth, reading in zip(truths, readings, strict=True):
        assert iou(truth, reading) >= least, name
    assert not any("classes" in warning for warning in warnings)


def read_all(
    folder: Path, write: Write, masks: Sequence[Mask], foreground: Sequence[ForegroundValue] | None = None
) -> tuple[list[Mask], tuple[str, ...]]:
    folder.mkdir(exist_ok=True)
    for i, mask in enumerate(masks):
        write(folder / f"{i:02d}", mask, i)
    paths = sorted(folder.iterdir())
    decision = decide_rule(paths, foreground, folder)
    decision.problems.raise_if_any(str(folder))
    assert decision.rule is not None
    return [decode_mask(path, decision.rule).mask.astype(bool) for path in paths], decision.problems.warnings()


def iou(truth: Mask, reading: Mask) -> float:
    union = np.count_nonzero(truth | reading)
    return np.count_nonzero(truth & reading) / union if union else 1.0


def marked(value: float, inside: float = 1, dtype: type = np.uint8, suffix: str = "png") -> Write:
    """0 and `inside`, with a bar that is marked as not labelled."""

    def write(stem: Path, mask: Mask, _: int) -> None:
        array = np.where(mask, inside, 0.0)
        array[band(mask)] = value
        save(stem, array.astype(dtype), suffix)

    return write


def trimap(stem: Path, mask: Mask, _: int) -> None:
    save(stem, np.where(edge(mask), 3, np.where(mask, 1, 2)).astype(np.uint8))


def with_nothing(stem: Path, mask: Mask, i: int) -> None:
    """Probabilities with a bar of 9999."""
    array = probabilities(mask, i)
    array[band(mask)] = 9999
    save(stem, array.astype(np.float32), "tif")


VOID = "commonly marks pixels that are not labelled"
DOUBTS: dict[str, tuple[Write, str, Sequence[ForegroundValue]]] = {
    "255 beside 0/1": (marked(255), f"6 masks with values up to 1 beside 255, which {VOID}", [1]),
    "edges of 255 around 1": (
        lambda stem, mask, _: save(stem, np.where(edge(mask) & band(mask), 255, mask).astype(np.uint8)),
        "beside 255", [1],
    ),
    "65535 beside 0/1": (marked(65535, dtype=np.uint16), "up to 1 beside 65535", [1]),
    "99 beside 0/1": (marked(99), "up to 1 beside 99", [1]),
    "128 beside 0/255": (marked(128, 255), "masks with a third value, 128, beside 0 and 255", [255]),
    "254 beside 0/255": (marked(254, 255), "masks with a third value, 254, beside 0 and 255", [255]),
    "-1 beside 0/1": (marked(-1, dtype=np.int32, suffix="tif"), "masks with negative values, which are never", [1]),
    "-9999 beside 0/1": (marked(-9999, dtype=np.float32, suffix="tif"), "masks with negative values", [1]),
    "NaN beside 0/1": (marked(np.nan, dtype=np.float32, suffix="tif"), "masks with NaN or infinite values", [1]),
    "9999 beside probabilities": (with_nothing, "beside 9999", [1]),
    "palette with void": (palette([0, 0, 0, 128, 0, 0], void=True), "palette entries up to 1 beside 255", [1]),
    "1/2": (lambda stem, mask, _: save(stem, mask + np.uint8(1)), "6 masks with 2 values and no 0", [2]),
    "trimap": (trimap, "6 masks with 3 values and no 0", [1, 3]),
    "red on blue": (rgb((255, 0, 0), (0, 0, 255)), "masks of colours without black", ["#ff0000"]),
    "red on white": (rgb((255, 0, 0), (255, 255, 255)), "masks of colours without black", ["#ff0000"]),
    "palettes turned round": (
        either(palette([90, 10, 10, 10, 90, 10]), lambda s, m, i: palette([10, 90, 10, 90, 10, 10])(s, ~m, i)),
        "another background than the others' palettes", ["#0a5a0a"],
    ),
    "ink beside 0/255": (
        either(grey(255), lambda stem, mask, _: save(stem, rgba((0, 0, 0), mask * np.uint8(255)))),
        "masks whose transparency varies under one colour", [255],
    ),
    "0/1 beside soft edges": (
        either(grey(1), lambda stem, mask, _: save(stem, blurred(mask))), "0 and 1, beside masks with grey values", [],
    ),
    "nothing above 0.4": (
        lambda stem, mask, i: save(stem, (probabilities(mask, i) * 0.4).astype(np.float32), "tif"),
        "reaches half of the possible range", [],
    ),
    "jpeg, 0/1": (lossy("jpg", value=1, quality=90), "0/1 or class numbers do not survive its compression", []),
    "jpeg, 0/128/255": (
        lambda stem, mask, _: save(stem, np.where(band(mask), 128, mask * 255).astype(np.uint8), "jpg", quality=80),
        "a third level halfway", [],
    ),
    "jpeg, red on blue": (rgb((255, 0, 0), (0, 0, 255), "jpg"), "cannot be used as it is", []),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTS)
def test_a_doubt_is_refused_and_the_key_settles_it(tmp_path: Path, name: str) -> None:
    write, message, foreground = DOUBTS[name]
    masks = [shapes(48, seed) for seed in (0, 1, 2, 3, 4, 6)]
    with pytest.raises(DataError) as caught:
        read_all(tmp_path / "asked", write, masks)
    text = str(caught.value)
    assert message in text
    if not foreground:
        return
    assert "--set 'data.foreground=" in text
    readings = read_all(tmp_path / "settled", write, masks, foreground)[0]
    for mask, reading in zip(masks, readings, strict=True):
        np.testing.assert_array_equal(reading, mask & ~not_labelled(name, mask))


def not_labelled(name: str, mask: Mask) -> Mask:
    """What the masks of a doubt mark as such."""
    if name.startswith("palette with"):
        return edge(mask)
    if name.startswith("edges"):
        return edge(mask) & band(mask)
    marks = "beside" in name and not name.startswith("ink")
    return band(mask) if marks else np.zeros_like(mask)


FORMATS = {"png": {}, "tif": {}, "bmp": {}, "gif": {}, "webp": {"lossless": True}, "jpg": {"quality": 75}, "avif": {}}
PAIRS = ((0, 1), (0, 7), (0, 128), (0, 255), (1, 2), (50, 255), (255, 0))
CHANNELS = ("L", "RGB", "RGBA", "P")
IMPOSSIBLE = {("jpg", "RGBA"), ("jpg", "P"), ("bmp", "RGBA"), ("avif", "P"), ("webp", "P"), ("gif", "RGBA")}


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [(suffix, channels) for suffix in FORMATS for channels in CHANNELS if (suffix, channels) not in IMPOSSIBLE],
)
def test_every_format_with_every_pair_of_levels_is_the_truth_or_refused(
    tmp_path: Path, suffix: str, channels: str
) -> None:
    masks = [shapes(40, seed) for seed in (0, 1, 3, 5)]
    loses = suffix in ("jpg", "avif")
    for low, high in PAIRS:
        folder = tmp_path / f"{low}-{high}"

        def write(stem: Path, mask: Mask, _: int, low: int = low, high: int = high) -> None:
            image = Image.fromarray(np.where(mask, high, low).astype(np.uint8)).convert(channels)
            image.save(f"{stem}.{suffix}", **FORMATS[suffix])

        try:
            readings, warnings = read_all(folder, write, masks)
        except DataError:
            assert low not in (0, 255) or (loses and high < 255), (low, high)
            continue
        truths = [~mask for mask in masks] if low == 255 else masks  # whatever is not 0
        assert min(map(iou, truths, readings)) >= (0.97 if loses else 1.0), (low, high, warnings)


def test_alpha_is_the_valid_area_in_all_files_or_in_none(tmp_path: Path) -> None:
    masks = [shapes(40, seed) & ~band(shapes(40, seed)) for seed in (0, 1, 5, 3)]
    masks[1][:] = False  # an empty mask shows one colour, black, and still its alpha is the valid area
    readings, warnings = read_all(tmp_path, valid_area, masks)
    np.testing.assert_array_equal(readings, masks)
    assert warnings == ()


def test_an_answer_that_no_mask_can_be_read_with_is_refused(tmp_path: Path) -> None:
    masks = [shapes(40, seed) for seed in (0, 1)]
    with pytest.raises(DataError, match=r"2 masks without any value of data\.foreground = \[7\]; found 0 \(.* 255 \("):
        read_all(tmp_path / "png", grey(255), masks, [7])
    with pytest.raises(DataError, match=r"2 masks of a lossy format .*foreground = \[7\] cannot be found in them"):
        read_all(tmp_path / "jpg", lossy("jpg"), masks, [7])
    readings, _ = read_all(tmp_path / "turned", lossy("jpg"), masks, [0])
    np.testing.assert_array_equal(readings, [~mask for mask in masks])


def test_a_rule_is_one_of_the_whole_data_set(tmp_path: Path) -> None:
    write = CERTAIN["float probabilities"]
    for i, mask in enumerate([shapes(40, 0), np.zeros((40, 50), bool)]):
        write(tmp_path / f"{i}", mask, i)
    paths = sorted(tmp_path.iterdir())
    rule = require_rule(paths, None, tmp_path)
    assert rule.ranges == {"float": 1.0}
    assert MaskRule.from_tree(json.loads(json.dumps(rule.tree()))) == rule
    assert not decode_mask(paths[1], rule).mask.any()
