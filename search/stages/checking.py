"""What a job looks at before anything is trained: images and masks, Ray, models, the space."""

import logging
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.paths import RunPaths
from search.runs.records import read_run
from search.space.forbid import telling_points, uniform_points
from search.space.proof import require_effects
from search.space.search import Search
from search.space.tree import flatten
from search.terminal import counting_bar
from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.leaks import leak_warnings
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.errors import ConfigError, NoDataError
from segcore.params import Params, ParamValue

log = logging.getLogger("segsearch")

SPACE_SAMPLES = 64
"""Number of sampled points of the space; each encoder among them is built once."""


PART_KEYS = ("train.batch_size", "train.micro_batch_size")
_MODEL_KEYS = ("model.arch", "model.encoder", "model.depth", "model.decoder_channels")
_FROZEN_BY = "optimizer.encoder_lr_factor"
MAX_PROBLEMS = 3


def find_data(config: SearchConfig) -> DatasetIndex:
    """Finds the images and masks of a config.

    Raises:
        DataError: With everything that is wrong with them.
    """
    try:
        return discover(config.data)
    except NoDataError as error:
        hint = "Point elsewhere with --set data.root=FOLDER, or try without data: --set data.root=synthetic"
        raise NoDataError(f"{error}\n  {hint}") from error


def prepare_data(config: SearchConfig, console: Console) -> tuple[DatasetIndex, Path]:
    """Finds the images and masks, and `decode_data`.

    Raises:
        DataError: With everything that is wrong with the data.
    """
    index = find_data(config)
    return index, decode_data(index, config, console)


def decode_data(index: DatasetIndex, config: SearchConfig, console: Console) -> Path:
    """Checks the images and masks, and decodes them once, into the cache whose path it returns.

    Args:
        index: The images and masks.
        config: The config that names the data.
        console: Where progress is shown.

    Raises:
        DataError: With everything that is wrong with the data.
    """
    with counting_bar(console, "decoding images") as advance:
        cache_path = build_cache(index, config.data, advance)
    with open_cache(cache_path) as cache:
        for warning in (*index.warnings, *cache.warnings, *leak_warnings(cache, index)):
            log.warning("data: %s", warning)
    counts = ", ".join(f"{count} {split}" for split, count in index.counts().items() if count)
    height, width = config.data.image_hw
    log.info("data: %s images (layout %s) at %dx%d px from %s", counts, index.layout, width, height, index.root)
    return cache_path


def require_cluster(config: SearchConfig) -> None:
    """Refuses a search whose Ray does not answer, before anything is decoded.

    Raises:
        ResourceError: With the address and what names it.
    """
    from search.tune.cluster.start import require_ray

    require_ray(config.resources.address)


def require_models(search: Search) -> int:
    """`require_encoders` of all that the search may choose; returns how many they are.

    Raises:
        ConfigError: With the key at fault.
    """
    points = [flat for flat in uniform_points(search.space, SPACE_SAMPLES) if search.space.forbidden(flat) is None]
    seen = {_encoder_of(flat) for flat in points}
    for flat in telling_points(search.space, lambda key: key.startswith("model.")):  # options that are seldom drawn
        if _encoder_of(flat) not in seen and search.space.forbidden(flat) is None:
            seen.add(_encoder_of(flat))
            points.append(flat)
    return require_encoders([search.base, *map(search.trained_with, points)])


def _encoder_of(flat: Params) -> tuple[ParamValue, ParamValue]:
    return flat.get("model.encoder"), flat.get("model.encoder_weights")


def require_encoders(candidates: Iterable[TrainConfig]) -> int:
    """Builds each encoder once, so that a wrong name or missing weights show now, before any image is decoded.

    This also downloads weights from timm's hub once, before all trials ask for them. Returns how many there are.

    Raises:
        ConfigError: With the key at fault.
    """
    from segcore.models.build import build_model

    seen = set()
    for model in (candidate.model for candidate in candidates):
        key = (model.encoder, model.encoder_weights, model.decoder_channels, model.depth)
        if key not in seen:
            seen.add(key)
            build_model(model)
    return len(seen)


def require_parts(search: Search, num_train: int) -> int:
    """Refuses a point of the space that would train on single images with a model that cannot.

    Args:
        search: The search, or a single training run, which has a single point.
        num_train: Training images.

    Returns:
        The fewest images that go through a model at once.

    Raises:
        ConfigError: With the keys at fault and what else they may be.
    """
    # Imported here: it imports torch.
    from segcore.training.parts import one_image_problem, smallest_part

    own = flatten(search.base)
    fewest, seen, problems = num_train, set(), dict[str, None]()
    for point in telling_points(search.space, _decides_parts):
        if search.space.forbidden(point) is not None:
            continue
        batch_size, micro_batch_size, *model = (point.get(key, own[key]) for key in (*PART_KEYS, *_MODEL_KEYS))
        smallest = smallest_part(batch_size, micro_batch_size, num_train)  # type: ignore[arg-type]
        fewest = min(fewest, smallest)
        is_frozen = point.get(_FROZEN_BY, own[_FROZEN_BY]) == 0.0
        if smallest > 1 or (kind := repr((batch_size, micro_batch_size, model, is_frozen))) in seen:
            continue
        seen.add(kind)
        if (problem := one_image_problem(search.trained_with(point), num_train)) is not None:
            problems[problem] = None
    if problems:
        more = len(problems) - MAX_PROBLEMS
        rest = [f"and {more} more points of the space with the same fault"] if more > 0 else []
        raise ConfigError("\n".join([*list(problems)[:MAX_PROBLEMS], *rest]))
    return fewest


def _decides_parts(key: str) -> bool:
    return key in PART_KEYS or key.startswith("model.") or key == _FROZEN_BY


def prove_space(search: Search) -> None:
    """Refuses a searched key that changes nothing in what trials are built of.

    Raises:
        ConfigError: With the key at fault.
    """
    require_effects(search.space, search.base)


def same_data(config: SearchConfig, paths: RunPaths, console: Console) -> tuple[DatasetIndex, Path]:
    """The run's data and its cache, which is decoded again where it is gone.

    Args:
        config: The run's config.
        paths: The run.
        console: Where progress is shown.

    Raises:
        RunError: The data has changed since the run began.
    """
    index, cache_path = prepare_data(config, console)
    if read_run(paths).data_fingerprint not in (None, fingerprint_of(cache_path)):
        raise RunError(
            f"{index.root}: the images or masks have changed since {paths.name!r} began, so its trials could not be "
            "compared with new ones; start a new run with --name"
        )
    return index, cache_path


def fingerprint_of(cache_path: Path) -> str:
    """The fingerprint of the decoded data."""
    with open_cache(cache_path) as cache:
        return cache.fingerprint
