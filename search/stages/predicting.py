"""Sealed models at work: finding one by what the user typed, predicting a folder, scoring a data set."""

import errno
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from platformdirs import user_cache_dir

from search.commands import run_command
from search.config.choices import TARGETS
from search.errors import PredictionError, RunError
from search.runs.paths import find_run
from segcore.config import DataConfig
from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.decode import IMAGE_SUFFIXES
from segcore.data.pixels.opening import read_header
from segcore.data.pixels.surveying import decide_rule
from segcore.errors import BundleError, DataError
from segcore.scores.scoring import score_images, summarize
from segcore.sealed.bundle import Bundle, load_bundle
from segcore.sealed.card import CARD_FILE, Scores, SplitScores

log = logging.getLogger("segsearch")

_FATAL_FOR_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Error codes of a disk that accepts no file at all."""

REMOTE = tuple(target.name for target in TARGETS if target.build.fetch is not None)
"""Targets that a sealed model can be fetched from again."""


@dataclass(frozen=True)
class Failure:
    """An image that has no mask.

    Attributes:
        path: Its file.
        reason: Why, without the path.
    """

    path: Path
    reason: str


def find_model(text: str, results: Path, progress: Callable[[str, int, int], None] | None = None) -> Path:
    """The folder of a sealed model: a bundle, a run (its `best/`), or a copy of one at `KIND:LOCATION`.

    Args:
        text: What the user typed.
        results: Folder of the runs.
        progress: Called as `(file name, bytes done, bytes in total)` during a download.

    Raises:
        BundleError: There is no such model.
    """
    kind, _, location = text.partition(":")
    if kind in REMOTE:
        folder = Path(user_cache_dir("segsearch")) / "models" / location.strip("/").replace("/", "_")
        fetched: Path = TARGETS[kind].build.fetch(location, folder, progress)
        return fetched
    folder = Path(text)
    if (folder / CARD_FILE).is_file():
        return folder
    try:
        paths = find_run(text, results)
    except RunError as error:
        raise BundleError(
            f"no model {text!r}: it is no folder with a {CARD_FILE}, no run (looked in {results}), "
            f"and does not start with {' or '.join(f'{kind}:' for kind in REMOTE)}"
        ) from error
    if not (paths.best / CARD_FILE).is_file():
        raise BundleError(
            f"the run {paths.name!r} has no sealed model yet; continue with: {run_command('resume', paths.root)}"
        )
    return paths.best


def find_images(inputs: list[Path]) -> list[tuple[str, Path]]:
    """`(relative name without suffix, path)` of every image given, folders searched to any depth, hidden files not.

    Raises:
        DataError: A path does not exist, a folder holds no image, or two images would write the same mask.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        if not given.exists():
            raise DataError(f"no such image or folder: {given}")
        if given.is_file():
            items = [(Path(given.name), given)]
        else:
            files = sorted(path for path in given.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            items = [(path.relative_to(given), path) for path in files]
            items = [item for item in items if not any(part.startswith(".") for part in item[0].parts)]
            if not items:
                raise DataError(f"{given} holds no image (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
        for relative, path in items:
            name = relative.with_suffix("").as_posix()
            if name in found:
                raise DataError(f"{path} and {found[name]} would both be written as {name}.png; predict them apart")
            found[name] = path
    return list(found.items())


def predict_images(
    bundle: Bundle,
    images: list[tuple[str, Path]],
    out: Path,
    *,
    original_size: bool,
    progress: Callable[[int], None] | None = None,
) -> list[Failure]:
    """Writes a mask of 0 and 255 for each image to `out/NAME.png`, each under a temporary name and then moved.

    An image that cannot be read, or whose mask cannot be written, is left out; the others are predicted.

    Args:
        bundle: The model.
        images: `(name, file)` of each.
        out: Folder of the masks.
        original_size: Masks at each image's own size; else at the model's.
        progress: Called with the number of images done.

    Returns:
        The images left out, in order.

    Raises:
        PredictionError: The disk is full or read-only, so that no later mask could be written either.
    """
    failures: list[Failure] = []
    with_pages: list[Path] = []
    for done, (name, path) in enumerate(images, start=1):
        try:
            mask = bundle.predict_file(path, original_size=original_size)
            target = out / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_png(mask, target)
            with_pages += [path] if read_header(path).num_pages > 1 else []
        except DataError as error:
            failures.append(Failure(path, str(error).removeprefix(f"{path}: ")))
        except OSError as error:
            if error.errno in _FATAL_FOR_ALL:
                written = done - 1 - len(failures)
                raise PredictionError(f"{out}: {error.strerror} after {written} of {len(images)} masks") from error
            failures.append(Failure(path, f"its mask cannot be written: {_reason(error)}"))
        if progress is not None:
            progress(done)
    if with_pages:
        more = f" and {len(with_pages) - 1} more" if len(with_pages) > 1 else ""
        log.warning(
            "%d of %d images have several pages or frames, of which the first alone was predicted: %s%s",
            len(with_pages), len(images), with_pages[0], more,
        )  # fmt: skip
    return failures


def require_writable(out: Path) -> None:
    """Refuses a folder in which no mask could be written; creates it for the test and leaves nothing behind.

    Raises:
        DataError: With the reason.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out, prefix=".segsearch-"):
            pass
    except OSError as error:
        raise DataError(
            f"{out}: masks cannot be written there: {_reason(error)}; name another folder with -o"
        ) from error
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


@dataclass(frozen=True)
class DataScores:
    """What a model scores on a data set.

    Attributes:
        split: Which images: a split's name, or `all`.
        threshold: The model's.
        scores: Scores over all images.
        images: Scores of each image.
    """

    split: str
    threshold: float
    scores: SplitScores
    images: list[Scores]

    def tree(self) -> dict[str, Any]:
        """As `evaluate --json` prints it."""
        images = [image.tree() for image in self.images]
        return {"split": self.split, "threshold": self.threshold, **self.scores.tree(), "images": images}


def evaluate_data(
    bundle: Bundle, data: DataConfig, split: str | None, progress: Callable[[int, int], None] | None = None
) -> DataScores:
    """Scores the model on a data set at the model's image size.

    Args:
        bundle: The model.
        data: Where the images and masks are.
        split: `train` or `val` as training would split this data, a carved val split included; `test` or `all` of the
        data as it is on disk; None takes `test` where there is one, else `val`, else everything.
        progress: Called with `(images done, images in all)`.

    Raises:
        DataError: The data cannot be used, or the split is empty.
    """
    index = discover(data, carve=split in ("train", "val"))
    counts = index.counts()
    if split is None:
        split = next(name for name in ("test", "val", "train") if counts[name])
    samples = [sample for sample in index.samples if split in ("all", sample.split)]
    if not samples:
        have = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
        raise DataError(f"{index.root} has no images in the split {split!r}; it has {have}")
    rows = score_images(
        bundle, samples, _rule_of(index, data), None if progress is None else lambda done: progress(done, len(samples))
    )
    return DataScores(split, bundle.threshold, summarize(rows), [row.record() for row in rows])


def _rule_of(index: DatasetIndex, data: DataConfig) -> MaskRule:
    """What the masks of a data set mean, all splits looked at; what is odd about them is logged."""
    masks = [sample.mask for sample in index.samples]
    problems = Problems()
    decision = decide_rule(masks, data.foreground_values, Path(index.root))
    problems.extend(decision.problems)
    if problems.errors:
        problems.note("here data.foreground is given as: --foreground VALUE")
    problems.raise_if_any(index.root)
    for warning in problems.warnings():
        log.warning("data: %s", warning)
    assert decision.rule is not None, "a doubt is a problem"
    return decision.rule


def load_model(text: str, results: Path, progress: Callable[[str, int, int], None] | None = None) -> Bundle:
    """`find_model`, then `load_bundle`.

    Args:
        text: What the user typed.
        results: Folder of the runs.
        progress: As for `find_model`.
    """
    return load_bundle(find_model(text, results, progress))


def _write_png(mask: np.ndarray, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        Image.fromarray(mask).save(temporary, format="PNG")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
